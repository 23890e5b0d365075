"""Anonymous network namespaces, kept alive only by a file descriptor."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from netns import libc

# /proc/self is the main thread's; setns(2) and unshare(2) act on the calling thread.
_CURRENT = "/proc/thread-self/ns/net"


def _open_current() -> int:
    return os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)


class _Home:
    """The namespace of a thread that is on no host."""

    def __init__(self) -> None:
        self.descriptor = _open_current()

    def __del__(self, close=os.close) -> None:
        close(self.descriptor)


# The current namespace of each thread: opening it for every visit to a host takes longer than setns(2).
_here = threading.local()
# A child may move to another namespace.
os.register_at_fork(after_in_child=lambda: _here.__dict__.clear())


def _current() -> int:
    if not hasattr(_here, "descriptor"):
        _here.home = _Home()
        _here.descriptor = _here.home.descriptor
    return _here.descriptor


class NetworkNamespace:
    """A new network namespace. It lives as long as this descriptor and the sockets created in it.

    Then the kernel removes its interfaces, so a killed process leaves none behind.
    Source: network_namespaces(7).
    """

    held = 0                                # namespaces that this process holds
    _next: int | None = None                # a descriptor, if the next one is made already

    def __init__(self) -> None:
        made, NetworkNamespace._next = NetworkNamespace._next, None
        self.descriptor = self._make() if made is None else made

    @staticmethod
    def _make() -> int:
        before = _current()
        libc.unshare(libc.CLONE_NEWNET)
        try:
            descriptor = _open_current()
        finally:
            libc.setns(before, libc.CLONE_NEWNET)
        NetworkNamespace.held += 1
        return descriptor

    @classmethod
    def make_next(cls) -> None:
        """Make the next namespace in advance; it counts as held. Raises OSError."""
        made = cls._make()
        cls.forget_next()
        NetworkNamespace._next = made

    @classmethod
    def forget_next(cls) -> None:
        """The next namespace will be made when it is wanted."""
        if cls._next is not None:
            cls().close()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace within the block. Sockets and children created there belong to it."""
        before = _current()
        libc.setns(self.descriptor, libc.CLONE_NEWNET)
        _here.descriptor = self.descriptor
        try:
            yield
        finally:
            libc.setns(before, libc.CLONE_NEWNET)
            _here.descriptor = before

    def close(self) -> None:
        os.close(self.descriptor)
        NetworkNamespace.held -= 1

    def __enter__(self) -> "NetworkNamespace":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class Joined(NetworkNamespace):
    """The network namespace of a process, as long as this descriptor."""

    def __init__(self, pid: int) -> None:
        self.descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.descriptor)


# It is the parent's next one.
os.register_at_fork(after_in_child=NetworkNamespace.forget_next)
