"""Anonymous network namespaces, held by a file descriptor and by nothing else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from . import _libc

# /proc/self is the main thread's; setns(2) and unshare(2) act on the calling thread.
_CURRENT = "/proc/thread-self/ns/net"


def _open_current() -> int:
    return os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)


class NetworkNamespace:
    """A new network namespace. It lives as long as this descriptor and the sockets created in it.

    The kernel then removes its interfaces by itself, so a killed process leaves none behind.
    Source: network_namespaces(7).
    """

    def __init__(self) -> None:
        home = _open_current()
        try:
            _libc.unshare(_libc.CLONE_NEWNET)
            try:
                self.descriptor = _open_current()
            finally:
                _libc.setns(home, _libc.CLONE_NEWNET)
        finally:
            os.close(home)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside for the time of the block. Sockets and children made there belong to it."""
        before = _open_current()
        try:
            _libc.setns(self.descriptor, _libc.CLONE_NEWNET)
            try:
                yield
            finally:
                _libc.setns(before, _libc.CLONE_NEWNET)
        finally:
            os.close(before)

    def close(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> "NetworkNamespace":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
