"""Where a host's routes lead now, by RTM_GETROUTE: what `ip route get` prints, without a process. Source: rtnetlink(7)."""

import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

from pyroute2.netlink import NLM_F_REQUEST, NLMSG_ERROR

from netns.hosts.host import Host
from netns.netlink.message import HEADER, attribute, attributes, message

_RTM_GETROUTE = 26
_RTMSG = struct.Struct("=BBBBBBBBI")            # struct rtmsg
_DST, _SRC, _OIF, _GATEWAY, _METRICS, _CACHEINFO, _MARK, _VIA = 1, 2, 4, 5, 8, 12, 16, 18
_LOCK, _MTU = 1, 2                              # RTAX_
_CACHE = struct.Struct("=IIiI")                 # struct rta_cacheinfo: references, last use, expires, error
_TICKS = 100                                    # of user space in a second (USER_HZ)


@dataclass(frozen=True)
class Way:
    """The answer: `mtu` in bytes if an exception or the route has one, `expires` of an exception in seconds, `locked` if packets go
    without DF, the index of the `interface`, and the next hop."""

    mtu: int | None
    expires: float | None
    locked: bool
    interface: int
    gateway: str | None


def lookup(host: Host, destination: str, source: str = "", mark: int = 0, interface: int = 0) -> Way:
    """The way of a packet of the host to this address; `interface` is the index of its VRF, or of the only interface that it may use.
    Raises OSError: ENETUNREACH without a route."""
    address = ipaddress.ip_address(destination)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    length = address.max_prefixlen
    body = _RTMSG.pack(family, length, length if source else 0, 0, 0, 0, 0, 0, 0) + attribute(_DST, address.packed)
    if source:
        body += attribute(_SRC, ipaddress.ip_address(source).packed)
    for kind, number in ((_MARK, mark), (_OIF, interface)):
        if number:
            body += attribute(kind, struct.pack("=I", number))
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(message(_RTM_GETROUTE, NLM_F_REQUEST, body))
        answer = netlink.recv(1 << 16)
    _length, kind, *_rest = HEADER.unpack_from(answer)
    if kind == NLMSG_ERROR:
        (negative,) = struct.unpack_from("=i", answer, HEADER.size)
        raise OSError(-negative, os.strerror(-negative), destination)
    found = dict(attributes(answer, HEADER.size + _RTMSG.size))
    metrics = {name: int.from_bytes(value, "little") for name, value in attributes(found.get(_METRICS, b""))}
    expires = _CACHE.unpack(found[_CACHEINFO][:_CACHE.size])[2] if _CACHEINFO in found else 0
    return Way(mtu=metrics.get(_MTU), expires=expires / _TICKS if expires else None, locked=bool(metrics.get(_LOCK, 0) >> _MTU & 1),
               interface=int.from_bytes(found[_OIF], "little"), gateway=_gateway(found))


def _gateway(found: dict[int, bytes]) -> str | None:
    packed = found.get(_GATEWAY) or found.get(_VIA, b"")[2:]
    return str(ipaddress.ip_address(packed)) if packed else None
