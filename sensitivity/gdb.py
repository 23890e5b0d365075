"""QEMU's gdb port: read and write the memory of a stopped machine.

Source: the GDB manual, appendix E, "GDB Remote Serial Protocol".
"""
import socket
import time
from contextlib import suppress
from pathlib import Path

_CHUNK = 1024                               # bytes of memory in one packet; QEMU's own limit is 4096 characters
_PAGE = 4096


class GdbError(Exception):
    """QEMU does not answer, or refuses."""


class Gdb:
    """A connection, which stops the machine; close() lets it run on.  `within` is in seconds.  Raises GdbError."""

    def __init__(self, path: Path, within: float = 10) -> None:
        deadline = time.monotonic() + within
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(within)
            try:
                self._socket.connect(str(path))
                self._answers = self._socket.makefile("rb")
                return
            except OSError as error:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise GdbError(f"no gdb port at {path}: {error.strerror}") from None
                time.sleep(0.01)

    def read(self, address: int, size: int) -> bytes:
        """The bytes there; fewer where the memory ends, as behind a module's last function.  Raises GdbError."""
        data = bytearray()
        while len(data) < size:
            at = address + len(data)
            answer = self._ask(f"m{at:x},{min(_CHUNK, size - len(data), _PAGE - at % _PAGE):x}")
            if answer.startswith("E") or not answer:
                if data:
                    break
                raise GdbError(f"cannot read memory at {at:#x}: {answer}")
            data += bytes.fromhex(answer)
        return bytes(data)

    def write(self, address: int, data: bytes) -> None:
        for begin in range(0, len(data), _CHUNK):
            at, part = address + begin, data[begin:begin + _CHUNK]
            answer = self._ask(f"M{at:x},{len(part):x}:{part.hex()}")
            if answer != "OK":
                raise GdbError(f"cannot write memory at {at:#x}: {answer}")

    def close(self) -> None:
        """Disconnect; the machine runs on."""
        with suppress(OSError, GdbError):
            self._ask("D")
        self._answers.close()
        self._socket.close()

    def _ask(self, body: str) -> str:
        packet = body.encode()
        try:
            self._socket.sendall(b"$%s#%02x" % (packet, sum(packet) & 0xFF))
            while (answer := self._answer()).startswith("T"):       # unsolicited: the machine has stopped
                pass
            return answer
        except OSError as error:
            raise GdbError(f"QEMU does not respond on its gdb port: {error}") from None

    def _answer(self) -> str:
        while True:
            byte = self._byte()
            if byte == b"$":
                break
        body = bytearray()
        while (byte := self._byte()) != b"#":
            body += byte
        self._byte(), self._byte()
        self._socket.sendall(b"+")
        return body.decode()

    def _byte(self) -> bytes:
        byte = self._answers.read(1)
        if not byte:
            raise GdbError("QEMU closed its gdb port")
        return byte
