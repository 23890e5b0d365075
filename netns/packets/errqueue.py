"""A socket's error queue: the details of each error that IP_RECVERR and IPV6_RECVERR keep.

Source: ip(7), ipv6(7), include/uapi/linux/errqueue.h.
"""

import select
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

from netns.errors import ExpectationFailed, MissingFeature
from netns.named import NamedList

_LEVEL = {socket.AF_INET: socket.IPPROTO_IP, socket.AF_INET6: socket.IPPROTO_IPV6}
_RECVERR = {socket.AF_INET: 11, socket.AF_INET6: 25}
_RECVERR_RFC4884 = {socket.AF_INET: 26, socket.AF_INET6: 31}
_ERROR = struct.Struct("=IBBBxIHBx")        # struct sock_extended_err, its union as struct sock_ee_data_rfc4884
_OFFENDER = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}


class Origin(IntEnum):
    """The origin of an error: ee_origin."""

    NONE = 0
    LOCAL = 1
    ICMP = 2
    ICMP6 = 3


@dataclass(frozen=True)
class QueuedError:
    """One error: errno, ICMP type and code, the MTU or pointer in the message (`info`), and the offender: the source address
    of the ICMP message, None for a local error.

    `destination` is the address and port of the failed packet. `payload` is what the message quotes of it after its
    transport header; with receive_extensions() also what follows, with extensions from the offset `extensions` on, if they
    are `valid` (RFC 4884, 4).
    """

    errno: int
    origin: Origin
    kind: int
    code: int
    info: int
    extensions: int
    valid: bool
    offender: str | None
    destination: tuple[str, int] | None
    payload: bytes


def receive_errors(sock: socket.socket, on: bool = True) -> None:
    """Queue errors, and report also those that the socket would otherwise ignore: IP_RECVERR, IPV6_RECVERR."""
    sock.setsockopt(_LEVEL[sock.family], _RECVERR[sock.family], int(on))


def receive_extensions(sock: socket.socket) -> None:
    """Report where the extensions of ICMP messages begin (IP_RECVERR_RFC4884). Raises MissingFeature."""
    try:
        sock.setsockopt(_LEVEL[sock.family], _RECVERR_RFC4884[sock.family], 1)
    except OSError as error:
        raise MissingFeature(f"the kernel has no IP_RECVERR_RFC4884: {error.strerror}") from error


def pending(sock: socket.socket) -> QueuedError | None:
    """Dequeue the oldest error; None if the queue is empty."""
    try:
        payload, ancillary, _flags, address = sock.recvmsg(2048, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    data = NamedList("control messages IP_RECVERR of an error queue", (
        data for level, kind, data in ancillary if (level, kind) == (_LEVEL[sock.family], _RECVERR[sock.family]))).only()
    number, origin, kind, code, info, extensions, flags = _ERROR.unpack_from(data)
    return QueuedError(number, Origin(origin), kind, code, info, extensions, not flags, _offender(data[_ERROR.size:]),
                       address[:2] if address else None, payload)


def next_error(sock: socket.socket, within: float = 5) -> QueuedError:
    """Like pending(), but wait up to `within` seconds. Raises ExpectationFailed."""
    poll = select.poll()
    poll.register(sock, 0)
    if poll.poll(within * 1000) and (error := pending(sock)):
        return error
    raise ExpectationFailed(f"{getattr(sock, 'role', '?')}: no error in the socket's error queue within {within:g} s")


def _offender(address: bytes) -> str | None:
    (family,) = struct.unpack_from("=H", address)
    if family not in _OFFENDER:
        return None
    start, length = _OFFENDER[socket.AddressFamily(family)]
    return socket.inet_ntop(family, address[start:start + length])
