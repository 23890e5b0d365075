"""System calls by number, as 64-bit and as 32-bit programs make them, with strings and structures as arguments.

Source: syscall(2), "Architecture calling conventions"; x86-64 only.
"""

import ctypes
import errno
import mmap
import os
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from netns.errors import MissingFeature

_MAP_32BIT = 0x40
_SIZE = 1 << 16
# long call(long number, const long arguments[6]): int $0x80, with the result in a whole register.
_COMPAT = bytes.fromhex("53 55 89F8 8B1E 8B4E08 8B5610 8B7E20 8B6E28 8B7618 CD80 4898 5D 5B C3")
_GETPID_32 = 20


@dataclass(frozen=True)
class Opened:
    """An argument: a descriptor of this file, opened before the call with these flags."""

    path: str
    flags: int = os.O_RDONLY


@dataclass(frozen=True)
class UnixSocket:
    """An argument: a descriptor of an unbound AF_UNIX socket."""


@dataclass(frozen=True)
class Array:
    """An argument: the address of an array of words that hold these, with a 0 behind them."""

    items: "tuple[Argument, ...]"


Argument = Union[int, bytes, Opened, UnixSocket, Array]      # evaluated, by Python 3.8 too


class Caller:
    """Makes system calls of this process. Bytes are passed by their address, with a zero byte behind them."""

    def __init__(self) -> None:
        # Both where a 32-bit call can point to.
        self._memory = mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT)
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code.write(_COMPAT)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._compat = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_void_p)(address)
        self._native = ctypes.CDLL(None, use_errno=True).syscall
        self._native.restype = ctypes.c_long
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._used = 0
        self._descriptors: list[int] = []

    def require_compat(self) -> None:
        """Raise MissingFeature if the kernel takes no 32-bit system calls (CONFIG_IA32_EMULATION)."""
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os._exit(0 if self._compat(_GETPID_32, self._arguments([], 8)) == os.getpid() else 1)
        if os.waitpid(child, 0)[1] != 0:
            raise MissingFeature("the kernel takes no 32-bit system calls")

    def prepare(self, arguments: Sequence[Argument], compat: bool = False) -> int:
        """Open what the arguments need and place them in memory, until release(); what call() takes."""
        width = 4 if compat else 8
        return self._arguments([self._value(each, width) for each in arguments], 8)

    def call(self, number: int, prepared: int, compat: bool = False) -> str:
        """The name of the errno, "" if the call succeeds. Raises MissingFeature for ENOSYS."""
        if compat:
            result = self._compat(number, prepared)
            failed = -result if -4096 < result < 0 else 0
        else:
            words = struct.unpack_from("=6q", self._memory, prepared - self._base)
            failed = ctypes.get_errno() if self._native(ctypes.c_long(number), *map(ctypes.c_long, words)) == -1 else 0
        if failed == errno.ENOSYS:
            raise MissingFeature(f"the kernel has no {32 if compat else 64}-bit system call {number}")
        return errno.errorcode.get(failed, str(failed)) if failed else ""

    def release(self) -> None:
        """Close the descriptors of the prepared calls, and free their memory."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors, self._used = [], 0

    def _value(self, argument: Argument, width: int) -> int:
        if isinstance(argument, bytes):
            return self._put(argument + b"\0")
        if isinstance(argument, Array):
            words = [self._value(each, width) for each in argument.items]
            return self._put(b"".join(word.to_bytes(width, "little") for word in [*words, 0]))
        if isinstance(argument, int):
            return argument
        if isinstance(argument, Opened):
            descriptor = os.open(argument.path, argument.flags)
        else:
            descriptor = socket.socket(socket.AF_UNIX).detach()
        self._descriptors.append(descriptor)
        return descriptor

    def _arguments(self, values: Sequence[int], width: int) -> int:
        return self._put(b"".join(value.to_bytes(width, "little", signed=True) for value in [*values, *[0] * (6 - len(values))]))

    def _put(self, data: bytes) -> int:
        place, self._used = self._used, self._used + (len(data) + 7) // 8 * 8
        if self._used > _SIZE:
            raise ValueError(f"the arguments of the prepared calls are longer than {_SIZE} bytes")
        self._memory[place:place + len(data)] = data
        return self._base + place
