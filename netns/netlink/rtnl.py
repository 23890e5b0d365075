"""rtnetlink requests, many in one message exchange.

The messages are pyroute2's; sending them in one go over a plain socket costs a tenth of an IPRoute object. Most are
encoded once: a suite builds the same few topologies over and over.
"""

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_ERROR
from pyroute2.netlink.rtnl import RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netns import unsupported
from netns.hosts.interface import Interface
from netns.hosts.namespace import NetworkNamespace
from netns.netlink.message import HEADER, attributes

_IFF_UP = 0x1
_IFA_F_NODAD = 0x02
_SOL_NETLINK = 270
_NETLINK_EXT_ACK = 11
_NLMSGERR_ATTR_MSG = 1
_SEQUENCE_AT = 8
LOOPBACK = 1
_RT_TABLE_MAIN = 254
_RTPROT_STATIC = 4
_RT_SCOPE_UNIVERSE = 0
_RTN_UNICAST = 1


class Message(NamedTuple):
    """A request, encoded but for its sequence number, and what it says in words."""

    data: bytes
    words: str


@cache
def link_state(index: int, up: bool) -> Message:
    """Set an interface administratively up or down."""
    return _message(ifinfmsg, RTM_NEWLINK, 0, index=index, flags=_IFF_UP if up else 0, change=_IFF_UP)


@cache
def link_mtu(index: int, mtu: int) -> Message:
    """Set an interface's MTU in bytes."""
    return _message(ifinfmsg, RTM_NEWLINK, 0, index=index, attrs=[("IFLA_MTU", mtu)])


def loopback_up() -> Message:
    return link_state(LOOPBACK, up=True)


@cache
def veth(near: Interface, far: Interface, mtu: int, far_namespace: int) -> Message:
    """A veth pair, both ends down, `mtu` in bytes. The far end is born in the namespace of this descriptor."""
    peer = _veth_end(far, mtu)
    peer["attrs"].append(("IFLA_NET_NS_FD", far_namespace))
    fields = _veth_end(near, mtu)
    data = {"attrs": [("VETH_INFO_PEER", peer)]}
    fields["attrs"].append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}))
    return _message(ifinfmsg, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, **fields)


def _veth_end(end: Interface, mtu: int) -> dict:
    attributes = [("IFLA_IFNAME", end.name), ("IFLA_ADDRESS", end.mac), ("IFLA_MTU", mtu)]
    return {"index": end.index, "attrs": attributes}


@cache
def address(index: int, local: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> Message:
    """Add an address; for IPv6 without duplicate address detection, which would hold it back for a second."""
    attributes = [("IFA_LOCAL", str(local.ip)), ("IFA_ADDRESS", str(local.ip))]
    return _message(ifaddrmsg, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL,
                    family=_family(local), prefixlen=local.network.prefixlen,
                    flags=_IFA_F_NODAD if local.version == 6 else 0, index=index, attrs=attributes)


def route(to: ipaddress.IPv4Network | ipaddress.IPv6Network, *ways: tuple[str, int], mtu: int = 0) -> Message:
    """Add a route; each of its ways, of the same cost, is a gateway and an interface; `mtu` in bytes is its own, 0 for none."""
    attributes = [("RTA_DST", str(to.network_address))]
    if len(ways) == 1:
        [(gateway, index)] = ways
        attributes += [("RTA_GATEWAY", gateway), ("RTA_OIF", index)]
    else:
        attributes.append(("RTA_MULTIPATH", [{"hops": 0, "oif": index, "attrs": [("RTA_GATEWAY", gateway)]} for gateway, index in ways]))
    if mtu:
        attributes.append(("RTA_METRICS", {"attrs": [("RTAX_MTU", mtu)]}))
    return _message(rtmsg, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL,
                    family=_family(to), dst_len=to.prefixlen, table=_RT_TABLE_MAIN, proto=_RTPROT_STATIC,
                    scope=_RT_SCOPE_UNIVERSE, type=_RTN_UNICAST, attrs=attributes)


def _family(address_: ipaddress.IPv4Interface | ipaddress.IPv6Interface | ipaddress.IPv4Network
            | ipaddress.IPv6Network) -> int:
    return socket.AF_INET if address_.version == 4 else socket.AF_INET6


def _message(kind: type, number: int, extra_flags: int, **fields: object) -> Message:
    message = kind()
    for name, value in fields.items():
        message[name] = value
    message["header"]["type"] = number
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | extra_flags
    words = str(message)
    message.encode()
    return Message(bytes(message.data), words)


def request(namespace: NetworkNamespace, messages: Sequence[Message]) -> None:
    """Carry out the messages in order, in one send; the kernel goes on after one that fails.

    Raises OSError for the first that failed: the kernel's errno, its own words where it gives them, and the message. It is
    MissingFeature too where the kernel does not support what is asked for.
    """
    with unsupported.in_request("support for this"):
        exchange(namespace, socket.NETLINK_ROUTE, [message.data for message in messages],
                 [message.words for message in messages])


def exchange(namespace: NetworkNamespace, protocol: int, messages: Sequence[bytes], names: Sequence[object]) -> None:
    """request() for any netlink `protocol`: the messages, which it numbers from 0, ask for NLM_F_ACK.

    Raises OSError as request() does, with the failed message's name out of `names`; it is MissingFeature too where the kernel does not
    have the protocol.
    """
    for name, (number, words) in zip(names, outcomes(namespace, protocol, messages)):
        if number:
            raise OSError(number, f"{os.strerror(number)} {words}: {name}")


def outcomes(namespace: NetworkNamespace, protocol: int, messages: Sequence[bytes]) -> list[tuple[int, str]]:
    """Carry out the messages like exchange(): the errno of each, 0 for success, and the kernel's words."""
    with namespace.entered(), unsupported.in_request(unsupported.netlink(protocol)):
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    with netlink:
        netlink.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        numbered = bytearray().join(messages)
        offset = 0
        for sequence, message in enumerate(messages):
            struct.pack_into("=I", numbered, offset + _SEQUENCE_AT, sequence)
            offset += len(message)
        netlink.send(numbered)
        found = {}
        while len(found) < len(messages):
            found.update((sequence, (number, words)) for sequence, number, words in _acknowledgements(netlink.recv(1 << 16)))
    return [found[sequence] for sequence in range(len(messages))]


def _acknowledgements(data: bytes):
    """(sequence number, errno or 0, the kernel's words) of each NLMSG_ERROR in a datagram. Source: netlink(7)."""
    offset = 0
    while offset < len(data):
        length, kind, flags, sequence, _port = HEADER.unpack_from(data, offset)
        if kind != NLMSG_ERROR:
            raise OSError(errno.EPROTO, f"unexpected netlink message type {kind}")
        (negative,) = struct.unpack_from("=i", data, offset + HEADER.size)
        yield sequence, -negative, _words(data[offset:offset + length], flags) if negative else ""
        offset += (length + 3) & ~3


def _words(message: bytes, flags: int) -> str:
    NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
    if not flags & NLM_F_ACK_TLVS:
        return ""
    # The attributes follow the header of the failed request, or the whole of it unless it was capped.
    (request_length,) = struct.unpack_from("=I", message, HEADER.size + 4)
    offset = HEADER.size + 4 + (HEADER.size if flags & NLM_F_CAPPED else (request_length + 3) & ~3)
    words = dict(attributes(message, offset)).get(_NLMSGERR_ATTR_MSG)
    return "(" + words.rstrip(b"\0").decode() + ")" if words else ""
