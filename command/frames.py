"""What a guest with a command sends, as the launcher and the session read it (vm.command)."""
import json
from collections.abc import Iterator
from typing import Any

from vm.command import HEAD
from vm.outlet import LONGEST, Misbehaved

LONGEST_RUN = 1e12                          # seconds


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


def read_outcome(content: bytes) -> dict[str, Any]:
    """How a command ended: status, seconds, idle (vm.command.run).  Raises Misbehaved for what no guest sends."""
    try:
        outcome = json.loads(content)
    except (ValueError, RecursionError):
        outcome = None
    if (isinstance(outcome, dict) and outcome.keys() == {"status", "seconds", "idle"} and isinstance(outcome["status"], int)
            and 0 <= outcome["status"] <= 255 and all(isinstance(outcome[name], int | float) and -LONGEST_RUN < outcome[name] < LONGEST_RUN
                                                      for name in ("seconds", "idle"))):
        return outcome
    raise Misbehaved("the guest does not say how the command ended")
