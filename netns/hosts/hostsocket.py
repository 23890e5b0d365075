"""Sockets whose errors and timeouts name the host and the addresses."""

import socket
from collections.abc import Callable

from netns.errors import SocketTimeout

_KINDS = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP", socket.SOCK_RAW: "raw"}


def _timed(name: str, what: str) -> Callable:
    """The socket method `name`; its timeout error says `what` the socket failed to do."""
    method = getattr(socket.socket, name)

    def call(self: "HostSocket", *arguments: object, **options: object) -> object:
        if name == "connect":
            self._target = arguments[0]
        try:
            return method(self, *arguments, **options)
        except TimeoutError as error:
            # The kernel's own ETIMEDOUT has an errno.
            if error.errno is not None:
                raise self._named(error)
            raise SocketTimeout(f"{self.role}: the {self.name} {what} within {self.gettimeout():g} s") from None
        except OSError as error:
            raise self._named(error)
    call.__name__ = call.__qualname__ = name
    return call


class HostSocket(socket.socket):
    """A socket of the host with this `role`. Its timeouts raise SocketTimeout, a TimeoutError."""

    role = "?"
    _target: object = None

    recv = _timed("recv", "received no data")
    recvfrom = _timed("recvfrom", "received no data")
    recvmsg = _timed("recvmsg", "received no data")
    connect = _timed("connect", "did not connect")
    send = _timed("send", "had no room in the send buffer")
    sendall = _timed("sendall", "had no room in the send buffer")
    sendto = _timed("sendto", "had no room in the send buffer")
    _accept = _timed("_accept", "accepted no connection")

    @property
    def name(self) -> str:
        """The socket's type, and the addresses of both ends as far as they are known."""
        here, there = self._end(self.getsockname), self._end(self.getpeername)
        words = (("on", here), ("connected to", there), ("connecting to", "" if there else self._end(lambda: self._target)))
        ends = [f" {word} {end}" for word, end in words if end]
        return f"{_KINDS.get(self.type, 'other')} socket{''.join(ends)}"

    def _named(self, error: OSError) -> OSError:
        """The error with this socket in its text, as the filename. It makes no system call, because the test goes on:
        getsockname() on UDP may look up the route again (ip4_datagram_release_cb())."""
        there = self._end(lambda: self._target)
        error.filename = f"{self.role}: {_KINDS.get(self.type, 'other')} socket{' connecting to ' + there if there else ''}"
        return error

    @staticmethod
    def _end(ask: Callable[[], object]) -> str:
        try:
            address, port, *_rest = ask()
        except (OSError, TypeError, ValueError):
            return ""
        return f"{address} port {port}" if port else ""

    def accept(self) -> tuple["HostSocket", object]:
        """Like socket.accept(), but the new socket is a HostSocket."""
        descriptor, address = self._accept()
        made = HostSocket(self.family, self.type, self.proto, fileno=descriptor)
        made.role = self.role
        if socket.getdefaulttimeout() is None and self.gettimeout():
            made.setblocking(True)
        return made, address
