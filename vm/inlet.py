"""The guest's input, which comes when the guest asks and never else.

An interrupt at a moment that the host chooses would move a guest's clock and all that follows.  So the guest asks, at an instruction of
its own, by writing to two ports.  The first write tells the launcher (vm.line).  The second one QEMU cannot finish until the launcher
allows it: it waits for room in a socket, and holds its global lock meanwhile, so that none of its threads runs a timer, moves the clock or
interrupts the guest.  By then the answer is in the memory of an ivshmem device.

A kernel may be built without ioperm(2).  It writes to the ports itself then: a method of an ACPI device does, which the kernel runs
when the device's slot number is read from sysfs.

This file is copied into the boot image, beside process 1.
"""
import ctypes
import functools
import mmap
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

BELL, GATE = 0x7E0, 0x7E1                   # ports
MEMORY = ("0x1af4", "0x1110")               # vendor and device of ivshmem, whose region 2 it is
HEADER = 4096                               # bytes before the answer; the first four are its length, 0 as long as there is none
ENDED = 0xFFFFFFFF                          # the length that says that nothing will come any more
WRITE = bytes.fromhex("89fa ee c3")         # mov edx, edi; out dx, al; ret: what is in al does not matter
ACPI_DEVICE = Path("/sys/bus/acpi/devices/KDRF0001:00/sun")
TABLE = bytes.fromhex("".join((             # an SSDT without its header: ACPI specification, 20.2
    "1041055c5f53425f",                     # Scope (\_SB) {
    "5b8248044b445246",                     #     Device (KDRF) {
    "085f4849440d4b4452463030303100",       #         Name (_HID, "KDRF0001")
    "5b80504f5254010be0070a02",             #         OperationRegion (PORT, SystemIO, 0x07E0, 2)
    "5b8110504f52540142454c4c084741544508",  #        Field (PORT, ByteAcc, NoLock, Preserve) {BELL, 8, GATE, 8}
    "14145f53554e00",                       #         Method (_SUN) {
    "700042454c4c",                         #             BELL = 0
    "700047415445",                         #             GATE = 0
    "a400",                                 #             Return (0) } } }
)))
FRAME = 9                                   # bytes of the head of an execnet message, the last four of which are its length


libc = ctypes.CDLL(None, use_errno=True)


def ringer() -> Callable[[], object]:
    """A function that writes to both ports.  It may be used by threads and processes that begin later.  Raises OSError."""
    if libc.ioperm(BELL, GATE + 1 - BELL, 1):
        if not ACPI_DEVICE.exists():
            raise OSError(ctypes.get_errno(), "cannot access I/O ports: the kernel needs CONFIG_X86_IOPL_IOPERM or CONFIG_ACPI")
        return functools.partial(os.pread, os.open(ACPI_DEVICE, os.O_RDONLY), 1, 0)
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(WRITE)
    write = ctypes.PYFUNCTYPE(None, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def ring(_code: mmap.mmap = code) -> None:      # it stays as long as the function
        write(BELL)
        write(GATE)

    return ring


def map_memory() -> int:
    """The address at which the answers are mapped, for reading only.  Raises OSError."""
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    for device in Path("/sys/bus/pci/devices").glob("*"):
        if ((device / "vendor").read_text().strip(), (device / "device").read_text().strip()) != MEMORY:
            continue
        start, end, _flags = (int(word, 16) for word in (device / "resource").read_text().splitlines()[2].split())
        descriptor = os.open(device / "resource2", os.O_RDWR)
        address: int = libc.mmap(None, end - start + 1, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), f"cannot map the memory of PCI device {device.name}")
        os.close(descriptor)
        return address
    raise OSError("no ivshmem device: the kernel needs CONFIG_PCI and CONFIG_SYSFS")


class Inlet:
    """One per machine; processes that are forked share it, and one at a time may ask."""

    def __init__(self) -> None:
        self.memory = map_memory()
        self.length = ctypes.c_uint32.from_address(self.memory)
        self.ring = ringer()

    def ask(self) -> bytes:
        """The next piece; b"" when nothing will come any more."""
        self.ring()
        while not self.length.value:        # here the machine is saved, and begins when it is restored
            pass
        return b"" if self.length.value == ENDED else ctypes.string_at(self.memory + HEADER, self.length.value)


class GatewayIO:
    """What execnet reads and writes (execnet.gateway_base.IO).  It reads a frame only when somebody here wants one.

    execnet's own reader would ask for the next frame as soon as it has one, and the machine would stand still in the middle of a
    test.  The first two, a program and its argument, are wanted from the beginning.
    """

    def __init__(self, inlet: Inlet, output: int, execmodel: object) -> None:
        self.inlet, self.output, self.execmodel = inlet, output, execmodel
        self.buffer = b""
        self.left = 0                       # bytes of the frame that have not been read
        self.all_wanted = self.ended = False
        self.handled: threading.Event | None = None
        self.wanted: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()
        for _ in range(2):
            self.wanted.put(None)

    def take(self) -> None:
        """Have execnet read one frame and handle it."""
        handled = threading.Event()
        self.wanted.put(handled)
        if not self.ended:
            handled.wait()

    def take_all(self) -> None:
        """Whatever comes is wanted from now on."""
        self.all_wanted = True
        self.wanted.put(None)

    def read(self, size: int) -> bytes:
        """Raises EOFError when nothing will come any more."""
        if not self.left and size == FRAME:
            self._next_frame()
        while len(self.buffer) < size:
            data = self.inlet.ask()
            if not data:
                raise EOFError("the launcher closed the connection")
            self.buffer += data
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        self.left = int.from_bytes(data[5:], "big") if size == FRAME and not self.left else self.left - size
        return data

    def _next_frame(self) -> None:
        if self.handled:
            self.handled.set()
        self.handled = None if self.all_wanted else self.wanted.get()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.output, view):]

    def close_read(self) -> None:
        """Called when the reader has ended: who waits for a frame waits no more."""
        self.ended = True
        while True:
            if self.handled:
                self.handled.set()
            try:
                self.handled = self.wanted.get_nowait()
            except queue.Empty:
                return

    def close_write(self) -> None:
        pass
