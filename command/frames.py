"""What a guest with a command sends, as the launcher and the session read it (vm.command)."""
from collections.abc import Iterator

from vm.command import HEAD
from vm.outlet import LONGEST, Misbehaved


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The frames that are whole by now: kind and data. Raises Misbehaved for one that no guest sends."""
        self.rest += data
        while len(self.rest) >= HEAD.size:
            kind, size = HEAD.unpack_from(self.rest)
            if size > LONGEST:
                raise Misbehaved(f"the guest sent a frame of {size} bytes")
            if len(self.rest) < HEAD.size + size:
                return
            data, self.rest = self.rest[HEAD.size:HEAD.size + size], self.rest[HEAD.size + size:]
            yield kind, data
