"""The bpf(2) system call, and enough of its instruction set for programs of a dozen instructions. No compiler.

Sources: include/uapi/linux/bpf.h, Documentation/bpf/standardization/instruction-set.rst.
"""

import ctypes
import errno
import fcntl
import os
import re
import struct
from pathlib import Path

from netns import libc
from netns.errors import MissingOnHost, missing_feature

_NR_BPF, _NR_PERF_EVENT_OPEN = 321, 298  # x86-64
_PERF_KPROBE = Path("/sys/bus/event_source/devices/kprobe/type")
_PERF_FLAG_FD_CLOEXEC, _PERF_EVENT_IOC_SET_BPF = 8, 0x40042408
_MAP_CREATE, _MAP_LOOKUP_ELEM, _PROG_LOAD, _PROG_TEST_RUN, _RAW_TRACEPOINT_OPEN = 0, 1, 5, 10, 17
_MAP_TYPE_ARRAY = 2
KPROBE, RAW_TRACEPOINT, TRACING = 2, 17, 26  # enum bpf_prog_type
FEXIT = 25  # enum bpf_attach_type
MAP_LOOKUP_ELEM, GET_CURRENT_PID_TGID, GET_NS_CURRENT_PID_TGID = 1, 14, 120  # helpers
R0, R1, R2, R3, R4, FRAME = 0, 1, 2, 3, 4, 10  # registers
_LOG_BYTES = 1 << 14
PERF_ATTR_SIZE = 72                         # up to config2: PERF_ATTR_SIZE_VER1


def instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | to, offset, value)


def move(to: int, value: int) -> bytes:
    return instruction(0xB7, to, value=value)


def frame_address(to: int, offset: int) -> bytes:
    """The address of a slot in the program's stack frame; `offset` is negative."""
    return instruction(0xBF, to, FRAME) + instruction(0x07, to, value=offset)


def move64(to: int, value: int, source: int = 0) -> bytes:
    low, high = value & 0xFFFFFFFF, value >> 32
    return struct.pack("<BBhIBBhI", 0x18, source << 4 | to, 0, low, 0, 0, 0, high)


def map_address(to: int, map_descriptor: int) -> bytes:
    return move64(to, map_descriptor, source=1)


def load32(to: int, source: int, offset: int) -> bytes:
    return instruction(0x61, to, source, offset)


def store32(to: int, offset: int, source: int) -> bytes:
    return instruction(0x63, to, source, offset)


def add64(to: int, offset: int, source: int) -> bytes:
    """Atomic add to memory."""
    return instruction(0xDB, to, source, offset)


def skip_if_not(register: int, value: int, count: int) -> bytes:
    """Skip the next `count` instructions unless the register holds the value."""
    return instruction(0x55, register, offset=count, value=value)


def skip_if(register: int, value: int, count: int) -> bytes:
    return instruction(0x15, register, offset=count, value=value)


def call(helper: int) -> bytes:
    return instruction(0x85, value=helper)


RETURN = instruction(0x95)


def load(kind: int, program: bytes, attach_type: int = 0, attach_to: int = 0, module: int = 0) -> int:
    """Load and verify a program; returns its descriptor. `attach_to` is the BTF ID of a function, `module` a descriptor of
    the BTF of its module. Raises OSError with the verifier's log, MissingOnHost if bpf(2) is not permitted.
    """
    code, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attributes = struct.pack(
        "=IIQQIIQII16sIIIIQIIQIII", kind, len(program) // 8, ctypes.addressof(code), ctypes.addressof(licence),
        1, _LOG_BYTES, ctypes.addressof(log), 0, 0, b"kdrift", 0, attach_type, 0, 0, 0, 0, 0, 0, 0, attach_to, module,
    )
    try:
        return _bpf(_PROG_LOAD, attributes)[0]
    except OSError as error:
        # The verifier itself rejects with EACCES.
        if error.errno == errno.EPERM:
            raise MissingOnHost(f"bpf(2): {error.strerror}") from error
        raise OSError(error.errno, f"{error.strerror}: {log.value.decode(errors='replace')}") from error


def run(program: int) -> int:
    """Run a raw tracepoint program once, in the calling thread; returns its result as a signed number."""
    _result, answer = _bpf(_PROG_TEST_RUN, struct.pack("=Ii56x", program, 0))
    return struct.unpack_from("=Ii", answer)[1]


def attach(program: int, tracepoint: str | None = None) -> int:
    """Run the program at a raw tracepoint, or at the target it was loaded for, until the returned descriptor is closed."""
    name = ctypes.create_string_buffer(tracepoint.encode()) if tracepoint else None
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QI4x", ctypes.addressof(name) if name else 0, program))[0]


def attach_kprobe(program: int, function: str) -> int:
    """Run the program at each call of this kernel function until the returned descriptor is closed. Raises OSError;
    MissingFeature if perf cannot create the kprobe. Source: perf_event_open(2)."""
    try:
        kind = int(_PERF_KPROBE.read_text())
    except OSError as error:
        raise missing_feature("no perf kprobes", error) from error
    name = ctypes.create_string_buffer(function.encode())
    # struct perf_event_attr up to config2: type, size, ..., config1 (the function), config2 (the offset in it).
    event = perf_event(struct.pack("=II48xQQ", kind, PERF_ATTR_SIZE, ctypes.addressof(name), 0), thread=-1, cpu=0)
    try:
        fcntl.ioctl(event, _PERF_EVENT_IOC_SET_BPF, program)
    except OSError:
        os.close(event)
        raise
    return event


def perf_event(attributes: bytes, thread: int, cpu: int) -> int:
    """perf_event_open(2) with the start of a struct perf_event_attr, zero-padded. `thread` -1 is any thread, 0 the calling one;
    `cpu` -1 is any CPU. Raises OSError."""
    buffer = ctypes.create_string_buffer(attributes, PERF_ATTR_SIZE)
    return libc.syscall(_NR_PERF_EVENT_OPEN, ctypes.addressof(buffer), thread, cpu, -1, _PERF_FLAG_FD_CLOEXEC)


def runs(program: int) -> int:
    """The kernel's count of the program's runs, while kernel.bpf_stats_enabled is 1 (run_cnt in its fdinfo)."""
    text = Path(f"/proc/self/fdinfo/{program}").read_text()
    return int(re.search(r"^run_cnt:\t(\d+)$", text, re.M)[1])


def counter() -> int:
    """A descriptor of a map that holds one 64-bit number."""
    return _bpf(_MAP_CREATE, struct.pack("=IIIII", _MAP_TYPE_ARRAY, 4, 8, 1, 0))[0]


def counted(counter_map: int) -> int:
    key, value = ctypes.c_uint32(0), ctypes.c_uint64()
    _bpf(_MAP_LOOKUP_ELEM, struct.pack("=I4xQQQ", counter_map, ctypes.addressof(key), ctypes.addressof(value), 0))
    return value.value


def count_in(counter_map: int) -> bytes:
    """A program that increments the counter."""
    return b"".join((
        move(R1, 0), store32(FRAME, -4, R1), frame_address(R2, -4), map_address(R1, counter_map), call(MAP_LOOKUP_ELEM),
        skip_if(R0, 0, 2), move(R1, 1), add64(R0, 0, R1), move(R0, 0), RETURN,
    ))


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """The call's result, and the attributes as the kernel left them."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return libc.syscall(_NR_BPF, command, ctypes.addressof(buffer), len(attributes)), buffer.raw
