"""connect() by blocking, poll(2) and epoll(7) clients, and the error that each of them gets."""

import errno
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netns.errors import NotMet
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

    Raises NotMet if connect() does not finish.
    """
    with stopwatch() as took:
        number = (_block if way == "blocking" else _wait)(conn, target, way, meanwhile or (lambda: None), within)
    return Outcome(name(number), took.seconds)


def name(number: int) -> str:
    """The name of an errno, "" for 0; the number if it has no name, such as the kernel-internal ENOTSUPP (524)."""
    if number == errno.EOPNOTSUPP:
        return "EOPNOTSUPP"                 # Python calls it ENOTSUP
    return errno.errorcode.get(number, str(number)) if number else ""


def so_error(conn: socket.socket) -> str:
    """Read SO_ERROR, which clears it: the errno name, "" for none."""
    return name(conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def errno_of(call: Callable, *arguments: object) -> object:
    """The errno name that the call fails with; its return value if it succeeds."""
    try:
        return call(*arguments)
    except OSError as error:
        return name(error.errno)


@contextmanager
def refused(expected: str, what: str) -> Iterator[None]:
    """The block must fail with the errno name `expected`, or "timeout" for a socket timeout. Raises NotMet with `what` if it
    succeeds or fails differently."""
    try:
        yield
    except OSError as error:
        found = "timeout" if error.errno is None else name(error.errno)
        if found != expected:
            raise NotMet(f"{what} failed with {found}, expected {expected}") from error
    else:
        raise NotMet(f"{what} did not fail, expected {expected}")


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
        raise NotMet(f"connect() to {_address(target)} has not returned after {within:g} s")
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
        raise NotMet(f"the socket that connects to {_address(target)} is not writable after {within:g} s")
    return conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
