"""connect() by blocking, poll(2) and epoll(7) clients, and the error that each of them gets."""

import errno
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netns.errors import ExpectationFailed
from netns.wait import stopwatch

WAYS = ("blocking", "nonblocking", "epoll")
_EVENTS = {"IN": select.EPOLLIN, "OUT": select.EPOLLOUT, "ERR": select.EPOLLERR, "HUP": select.EPOLLHUP,
           "RDHUP": select.EPOLLRDHUP}


@dataclass(frozen=True)
class Outcome:
    """How connect() ended: the errno name ("" if it connected) and the duration in seconds."""

    error: str
    seconds: float


def attempt(
    conn: socket.socket, target: tuple[str, int], way: str, meanwhile: Callable[[], object] | None = None,
    within: float = 30
) -> Outcome:
    """Connect and wait up to `within` seconds for the result. The `way` is "blocking" (in connect()), "nonblocking" (poll(2))
    or "epoll" (epoll(7)); the latter two read SO_ERROR. `meanwhile` is called while connect() is in progress.

    Raises ExpectationFailed if connect() does not finish.
    """
    with stopwatch() as took:
        number = (_block if way == "blocking" else _wait)(conn, target, way, meanwhile or (lambda: None), within)
    return Outcome(errno_name(number), took.seconds)


def errno_name(number: int) -> str:
    """The name of an errno, "" for 0; the number if it has no name, such as the kernel-internal ENOTSUPP (524)."""
    if number == errno.EOPNOTSUPP:
        return "EOPNOTSUPP"                 # Python calls it ENOTSUP
    return errno.errorcode.get(number, str(number)) if number else ""


def so_error(conn: socket.socket) -> str:
    """Read SO_ERROR, which clears it: the errno name, "" for none."""
    return errno_name(conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def errno_of(call: Callable, *arguments: object) -> object:
    """The errno name that the call fails with; its return value if it succeeds."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno_name(error.errno)


@contextmanager
def refused(expected: str, what: str) -> Iterator[None]:
    """The block must fail with the errno name `expected`, or "timeout" for a socket timeout. Raises ExpectationFailed with `what` if it
    succeeds or fails differently."""
    try:
        yield
    except OSError as error:
        found = "timeout" if error.errno is None else errno_name(error.errno)
        if found != expected:
            raise ExpectationFailed(f"{what}: expected {expected}, got {found}") from error
    else:
        raise ExpectationFailed(f"{what}: expected {expected}, but it succeeded")


def events(conn: socket.socket, within: float = 0) -> set[str]:
    """The epoll events of the socket: those pending now, or the first within `within` seconds."""
    with select.epoll() as epoll:
        epoll.register(conn, sum(_EVENTS.values()))
        return {word for _, mask in epoll.poll(within) for word, bit in _EVENTS.items() if mask & bit}


def _address(target: tuple[str, int]) -> str:
    return f"{target[0]} port {target[1]}"


def _block(conn: socket.socket, target: tuple[str, int], _way: str, meanwhile: Callable, within: float) -> int:
    ended: list[int] = []
    conn.settimeout(None)
    client = threading.Thread(target=lambda: ended.append(conn.connect_ex(target)), daemon=True)
    client.start()
    meanwhile()
    client.join(within)
    if not ended:
        raise ExpectationFailed(f"connect() to {_address(target)} did not return within {within:g} s")
    return ended[0]


def _wait(conn: socket.socket, target: tuple[str, int], way: str, meanwhile: Callable, within: float) -> int:
    conn.setblocking(False)
    number = conn.connect_ex(target)
    if number != errno.EINPROGRESS:
        return number
    meanwhile()
    if way == "epoll":
        found = events(conn, within)
    else:
        poll = select.poll()
        poll.register(conn, select.POLLOUT)
        found = poll.poll(within * 1000)
    if not found:
        raise ExpectationFailed(f"nonblocking connect() to {_address(target)} did not finish within {within:g} s")
    return conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
