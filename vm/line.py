"""The launcher's end of the line to a guest: see vm.inlet for the other one.

What is for the guest is handed out piece by piece, when it asks, while its machine stands still.  What comes from it is in a file:
QEMU writes there at once, whoever is slow to read, so that the guest never waits for the host.
"""
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vm.inlet import BELL, ENDED, FRAME, GATE, HEADER, TABLE
from vm.outlet import Misbehaved, Outgoing
from vm.process import as_value

if TYPE_CHECKING:
    from execnet.gateway_base import ExecModel

MOST_WRITTEN = 1 << 30                      # bytes by one guest; a run of all tests writes some tens of MB
SIZE = 4 << 20                              # bytes of the memory
PAUSE = 0.01                                # seconds between two looks at what the guest has written


def narrow() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection; the second one has room to send one byte for each that the first one receives.

    A socket may send while what it has sent and nobody has received, each time with its overhead, is less than its buffer (socket(7),
    SO_SNDBUF).  So it is filled with single bytes.
    """
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    theirs.setblocking(False)
    try:
        while True:
            theirs.send(b"?")
    except BlockingIOError:
        return ours, theirs


def make_room(path: Path, size: int) -> None:
    """A file of zeros with all its pages: one that gets no room later would end QEMU by SIGBUS.  Raises OSError."""
    with open(path, "wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None


class Line:
    """`directory` is the machine's: `input` is the memory, `output` what the guest has written."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.pieces: deque[bytes] = deque()
        self.lock = threading.Lock()

    def prepare(self) -> None:
        """Begin with a machine that is about to be started.  Raises OSError: ENOSPC if the disk is full."""
        # QEMU makes it after the sockets that say that it has started.
        (self.directory / "output").touch()
        make_room(self.directory / "input", SIZE)
        self.asked = False                  # the guest waits for the next piece
        self.parked = False                 # it does so by looking at the memory all the time, and its clock runs on
        self._position = 0
        self.cut: Callable[[bytes], bytes] = Outgoing().cut         # what it writes into whole messages; raises Misbehaved
        self.pieces.clear()
        self._table = open(os.memfd_create("ssdt"), "wb", buffering=0)
        self._table.write(TABLE)
        self.bell, self._their_bell = socket.socketpair()
        self.gate, self._their_gate = narrow()

    def descriptors(self) -> tuple[int, int, int]:
        """What QEMU inherits."""
        return self._their_bell.fileno(), self._their_gate.fileno(), self._table.fileno()

    def devices(self) -> list[str]:
        """What QEMU is told."""
        bell, gate, table = self.descriptors()
        return ["-device", "ivshmem-plain,memdev=input,master=on",
                "-chardev", f"socket,id=bell,fd={bell}", "-device", f"isa-debugcon,iobase={BELL:#x},chardev=bell",
                "-chardev", f"socket,id=gate,fd={gate}", "-device", f"isa-debugcon,iobase={GATE:#x},chardev=gate",
                "-acpitable", f"sig=SSDT,rev=2,oem_id=KDRIFT,oem_table_id=LINE,data=/proc/self/fd/{table}",
                "-chardev", f"file,id=gateway,path={as_value(self.directory)}/output",
                "-device", "virtserialport,chardev=gateway,name=kdrift.gateway"]

    def memory(self, restored: bool) -> list[str]:
        """What QEMU is told of the memory.

        It is no part of a saved state if it is shared while that is written.  A restored machine must not share it, or QEMU compares the
        address that the firmware has given the device.  Since a guest never writes there it sees what is written to the file all the same.
        """
        share = "off" if restored else "on"
        return ["-object", f"memory-backend-file,id=input,size={SIZE},mem-path={as_value(self.directory)}/input,share={share}"]

    def started(self) -> None:
        """QEMU has its ends."""
        self._their_bell.close()
        self._their_gate.close()
        self._table.close()

    def open(self) -> None:
        """Read what the guest will have written."""
        self.output = os.open(self.directory / "output", os.O_RDONLY)

    def close(self) -> None:
        for end in (self.bell, self.gate, self._their_bell, self._their_gate, self._table):
            end.close()
        if hasattr(self, "output"):
            os.close(self.output)
            del self.output

    def put(self, data: bytes) -> None:
        """Hand this to the guest, as one piece if it has room, after what it has not asked for yet.  b"" ends its input."""
        room = SIZE - HEADER
        self.pieces.extend([data[start:start + room] for start in range(0, len(data), room)] or [b""])

    def restored(self) -> None:
        """The machine was parked when it was saved."""
        self.asked = self.parked = True

    def check_bell(self) -> bool:
        """Whether QEMU lives; looks without waiting whether the guest has asked."""
        with self.lock:
            try:
                data = self.bell.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
            self.asked |= bool(data)
            return bool(data)

    def answer(self) -> bool:
        """Hand out the next piece if the guest waits for one and there is one; whether it was."""
        with self.lock:
            if not self.asked or not self.pieces:
                return False
            data = self.pieces.popleft()
            with open(self.directory / "input", "r+b", buffering=0) as memory:
                os.pwrite(memory.fileno(), data, HEADER)
                os.pwrite(memory.fileno(), struct.pack("=I", len(data) or ENDED), 0)
            parked, self.asked, self.parked = self.parked, False, False
            if not parked:
                self.gate.recv(1)
            return True

    def park(self) -> None:
        """Let a guest that has asked wait by itself, so that QEMU can take orders: it takes none while the guest waits at the gate.

        The memory is all zeros then, which QEMU does not write when it restores a machine: it would have its own copy afterwards.
        """
        with self.lock:
            if self.asked and not self.parked:
                with open(self.directory / "input", "r+b", buffering=0) as memory:
                    memory.write(bytes(SIZE))
                self.parked = True
                self.gate.recv(1)

    def received(self) -> bytes:
        """Whole messages that the guest has written.  Raises Misbehaved for what no worker writes, and for too much of it."""
        data = os.pread(self.output, 1 << 20, self._position)
        self._position += len(data)
        if self._position > MOST_WRITTEN:
            raise Misbehaved(f"the guest wrote more than {MOST_WRITTEN >> 20} MB to its gateway")
        return self.cut(data)


class Frames:
    """Cuts a stream of bytes into execnet's messages, so that the guest is given the same pieces however they have come."""

    def __init__(self) -> None:
        self.rest = b""

    def cut(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole by now."""
        self.rest += data
        while len(self.rest) >= FRAME:
            size = FRAME + int.from_bytes(self.rest[5:FRAME], "big")
            if len(self.rest) < size:
                return
            frame, self.rest = self.rest[:size], self.rest[size:]
            yield frame


class LineIO:
    """The line as execnet reads and writes it (execnet.gateway_base.IO), for a gateway in this process."""

    def __init__(self, line: Line, execmodel: "ExecModel") -> None:
        self.line, self.execmodel = line, execmodel
        self.buffer = bytearray()
        self.closed = False

    def read(self, size: int) -> bytes:
        """Raises EOFError when the machine has ended."""
        while len(self.buffer) < size:
            lives = self.line.check_bell()
            if not self.line.answer():
                self.line.park()            # for QEMU's monitor and gdb port
            data = self.line.received()
            self.buffer += data
            if not data and (self.closed or not lives):
                raise EOFError("the machine has ended")
            if not data:
                time.sleep(PAUSE)
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def write(self, data: bytes) -> None:
        """execnet writes whole messages."""
        if self.closed:
            raise OSError("the line is closed")
        self.line.put(data)

    def close_read(self) -> None:
        self.closed = True

    def close_write(self) -> None:
        self.closed = True

    def wait(self) -> None:
        pass

    def kill(self) -> None:
        pass
