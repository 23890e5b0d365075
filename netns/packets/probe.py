"""Probes like traceroute(8)'s, built byte by byte, and the answers to them.

They use raw sockets: a UDP or TCP socket sets its own hash on its packets, which a router behind a veth takes for
the packet's (skb->l4_hash) and chooses a path by.
"""

import socket
import struct
from dataclasses import dataclass

from netns.hosts.host import Host
from netns.named import NamedList
from netns.observe.capture import Capture
from netns.packets.icmp import checksum, transport_checksum
from netns.packets.packet import Packet

KINDS = ("udp", "tcp", "icmp")
_V4, _V6 = socket.AF_INET, socket.AF_INET6
_PROTOCOL = {
    (_V4, "udp"): socket.IPPROTO_UDP, (_V4, "tcp"): socket.IPPROTO_TCP, (_V4, "icmp"): socket.IPPROTO_ICMP,
    (_V6, "udp"): socket.IPPROTO_UDP, (_V6, "tcp"): socket.IPPROTO_TCP, (_V6, "icmp"): socket.IPPROTO_ICMPV6,
}
_IP_TTL, _IP_MTU_DISCOVER, _IPV6_UNICAST_HOPS, _IPV6_MTU_DISCOVER, _IPV6_FLOWINFO_SEND, _DO = 2, 10, 16, 23, 33, 2
_SYN = 0x5002
_HEADER = {"udp": 8, "tcp": 20, "icmp": 8}


@dataclass(frozen=True)
class Answer:
    """An answer from `source`: the type and code of an ICMP message, or the flags of a TCP segment. `quoted` is the packet
    that an ICMP error quotes, from its IP header on, `identifier` that of an echo reply; `length` is the whole answer's in
    bytes, IP header included."""

    source: str
    kind: str | tuple[int, int]
    quoted: bytes
    identifier: bytes
    length: int


def set_ttl(sock: socket.socket, ttl: int) -> None:
    """Set IP_TTL or IPV6_UNICAST_HOPS."""
    if sock.family == _V4:
        sock.setsockopt(socket.IPPROTO_IP, _IP_TTL, ttl)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_UNICAST_HOPS, ttl)


def probe(
    host: Host, kind: str, source: str, destination: str, ttl: int, sport: int = 33000, dport: int = 33434,
    size: int = 0, label: int = 0
) -> bytes:
    """Send one probe of `size` bytes with all headers, at least the headers, which no router may fragment; returns its bytes
    after the IP header. For ICMP echo the ports are identifier and sequence number; `label` is the IPv6 flow label. Raises OSError."""
    family = _V6 if ":" in destination else _V4
    payload = bytes(max(0, size - (20 if family == _V4 else 40) - _HEADER[kind]))
    with host.socket(family, socket.SOCK_RAW, _PROTOCOL[family, kind]) as raw:
        raw.bind((source, 0))
        if family == _V4:
            raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DO)
        else:
            raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _DO)
            raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_FLOWINFO_SEND, 1)
        set_ttl(raw, ttl)
        message = _message(kind, family, source, destination, sport, dport, payload)
        raw.sendto(message, (destination, 0, label, 0) if family == _V6 else (destination, 0))
    return message


def _message(kind: str, family: int, source: str, destination: str, sport: int, dport: int, payload: bytes) -> bytes:
    if kind == "icmp":
        echo_request = 8 if family == _V4 else 128
        message, at = struct.pack("!BBHHH", echo_request, 0, 0, sport, dport) + payload, 2
    elif kind == "udp":
        message, at = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload, 6
    else:
        message, at = struct.pack("!HHIIHHHH", sport, dport, 1, 0, _SYN, 65535, 0, 0) + payload, 16
    if kind == "icmp" and family == _V4:
        number = checksum(message)
    else:
        number = transport_checksum(source, destination, _PROTOCOL[family, kind], message)
    return message[:at] + struct.pack("!H", number) + message[at + 2:]


def answers(packets: Capture) -> NamedList:
    """All answers that the host received: ICMP errors and echo replies, TCP segments."""
    received = packets.received()
    return NamedList(f"probe responses among {received.what}", (answer for packet in received if (answer := _answer(packet))))


def _answer(packet: Packet) -> Answer | None:
    if packet.segment is not None:
        return Answer(packet.source, packet.flags, b"", b"", packet.frame.length - 14)
    if packet.icmp is None:
        return None
    kind, code = packet.icmp[:2]
    if packet.protocol == "icmpv6" and 130 <= kind <= 143:
        return None                         # neighbour discovery and MLD
    return Answer(packet.source, (kind, code), packet.icmp[8:], packet.icmp[4:6], packet.frame.length - 14)
