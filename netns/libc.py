"""The few system calls that Python 3.11 lacks."""

import ctypes
import os
import signal
import struct
from collections.abc import Sequence

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
_CLONE3 = 435
_CAPABILITY_VERSION_3 = 0x20080522
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def syscall(number: int, *arguments: int) -> int:
    """A system call without a C library wrapper. Raises OSError."""
    result = _libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def fork_as(ids: Sequence[int]) -> int:
    """fork(2) of a single-threaded process; the child gets these PIDs, the innermost namespace's first (clone3(2), set_tid).
    Raises OSError."""
    numbers = (ctypes.c_int * len(ids))(*ids)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
    arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(numbers), len(ids), 0)
    return syscall(_CLONE3, ctypes.addressof(arguments), ctypes.sizeof(arguments))


def unshare(flags: int) -> None:
    """unshare(2) of the calling thread. Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """setns(2) of the calling thread; `kind` is one of CLONE_NEW*. Raises OSError."""
    _check(_libc.setns(descriptor, kind), "setns")


def disconnect(descriptor: int) -> None:
    """connect(2) with AF_UNSPEC: the socket has no peer any more. Raises OSError."""
    address = bytes(16)
    _check(_libc.connect(descriptor, address, len(address)), "connect with AF_UNSPEC")


def prctl(option: int, argument: int) -> None:
    """prctl(2) with one argument. Raises OSError."""
    _check(_libc.prctl(option, argument, 0, 0, 0), "prctl")


def capset(capabilities: int) -> None:
    """capset(2): these bits are the calling thread's permitted and effective capabilities. Raises OSError."""
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    _check(_libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), data), "capset")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2). Raises OSError."""
    encoded = (None if text is None else text.encode() for text in (source, target, kind))
    source_bytes, target_bytes, kind_bytes = encoded
    option_bytes = None if options is None else options.encode()
    _check(_libc.mount(source_bytes, target_bytes, kind_bytes, flags, option_bytes), f"mount {target}")
