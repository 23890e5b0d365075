"""What the suite's sources use and Python 3.8 lacks. reproduce.transform edits what cannot be supplied here."""

import bisect
import ctypes
import functools
import os
import signal
import socket

_PIDFD_SEND_SIGNAL, _PIDFD_OPEN = 424, 434      # include/uapi/asm-generic/unistd.h
# What a socket's timeout raises: a separate error before Python 3.10.
TIMEOUT = (TimeoutError, socket.timeout)


def removeprefix(text, prefix):
    return text[len(prefix):] if text.startswith(prefix) else text


def removesuffix(text, suffix):
    return text[:-len(suffix)] if suffix and text.endswith(suffix) else text


def union(left, right):
    """left | right, also of two dictionaries."""
    return {**left, **right} if isinstance(left, dict) else left | right


def _syscall(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _waitstatus_to_exitcode(status):
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _send_fds(sock, buffers, descriptors):
    data = b"".join(number.to_bytes(4, "little") for number in descriptors)
    return sock.sendmsg(buffers, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, data)])


def _bisect(right):
    def find(values, x, lo=0, hi=None, key=None):
        keys = values if key is None else [key(each) for each in values]
        return right(keys, x, lo, len(keys) if hi is None else hi)
    return find


def install():
    """Supply what is missing."""
    for module, name, made in (
        (functools, "cache", functools.lru_cache(maxsize=None)),
        (os, "waitstatus_to_exitcode", _waitstatus_to_exitcode),
        (os, "pidfd_open", lambda pid, flags=0: _syscall(_PIDFD_OPEN, pid, flags)),
        (signal, "pidfd_send_signal", lambda descriptor, number: _syscall(_PIDFD_SEND_SIGNAL, descriptor, int(number), 0, 0)),
        (socket, "send_fds", _send_fds),
    ):
        if not hasattr(module, name):
            setattr(module, name, made)
    try:
        bisect.bisect([], 0, key=None)
    except TypeError:
        bisect.bisect = _bisect(bisect.bisect)
