"""connect() as the three kinds of client make it, and what each of them learns when it fails."""

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
    """How connect() ended: its errno by name ("" for a connection), after so many seconds."""

    error: str
    seconds: float


def attempt(
    conn: socket.socket, target: tuple[str, int], way: str, meanwhile: Callable[[], object] | None = None,
    within: float = 30
) -> Outcome:
    """Connect, and wait `within` seconds for the end: a client that blocks in connect(), one that waits with poll(2),
    or one with epoll(7); the latter two ask SO_ERROR. `meanwhile` is called while connect() is under way.

    Raises NotMet if it does not end.
    """
    with stopwatch() as took:
        number = (_block if way == "blocking" else _wait)(conn, target, way, meanwhile or (lambda: None), within)
    return Outcome(name(number), took.seconds)


def name(number: int) -> str:
    """The errno's name, "" for 0; the number where there is no name, as of the kernel's own (ENOTSUPP, 524)."""
    if number == errno.EOPNOTSUPP:
        return "EOPNOTSUPP"                 # which Python calls ENOTSUP
    return errno.errorcode.get(number, str(number)) if number else ""


def so_error(conn: socket.socket) -> str:
    """SO_ERROR by name, "" for none. The kernel forgets the error with that."""
    return name(conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def errno_of(call: Callable, *arguments: object) -> object:
    """The errno's name that the call fails with; what it returns if it does not."""
    try:
        return call(*arguments)
    except OSError as error:
        return name(error.errno)


@contextmanager
def refused(expected: str, what: str) -> Iterator[None]:
    """The block ends with this errno, given by its name, or with a socket's "timeout". Raises NotMet, which says `what` was to be
    refused, if it does not fail, or otherwise."""
    try:
        yield
    except OSError as error:
        found = "timeout" if error.errno is None else name(error.errno)
        if found != expected:
            raise NotMet(f"{what} failed with {found}, expected {expected}") from error
    else:
        raise NotMet(f"{what} did not fail, expected {expected}")


def events(conn: socket.socket, within: float = 0) -> set[str]:
    """What epoll says of the socket: at once, or what comes first within so many seconds."""
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
