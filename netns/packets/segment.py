"""Segments and datagrams that no socket sends: old duplicates, late RSTs, forgeries."""

import socket

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from netns.hosts.host import Host

Endpoint = tuple[str, int]


def send(
    host: Host, source: Endpoint, destination: Endpoint, flags: str, seq: int, ack: int = 0,
    timestamps: tuple[int, int] | None = None, payload: bytes = b"", window: int = 1000
) -> None:
    """Send one segment from `source` to `destination`, addresses and ports that need no socket.

    `flags` are the first letters of the TCP flags, such as "FA"; `timestamps` are TSval and TSecr (RFC 7323); `window` is in
    bytes, unscaled. Numbers are taken modulo 2**32. Raises OSError.
    """
    options = [("NOP", None), ("NOP", None), ("Timestamp", tuple(each % 2**32 for each in timestamps))] \
        if timestamps else []
    header = TCP(sport=source[1], dport=destination[1], flags=flags, seq=seq % 2**32, ack=ack % 2**32, window=window,
                 options=options)
    _send(host, source, destination, header / payload)


def send_datagram(host: Host, source: Endpoint, destination: Endpoint) -> None:
    """Like send(), for a UDP datagram without data. Raises OSError."""
    _send(host, source, destination, UDP(sport=source[1], dport=destination[1]))


def _send(host: Host, source: Endpoint, destination: Endpoint, content: Packet) -> None:
    ip = (IPv6 if ":" in source[0] else IP)(src=source[0], dst=destination[0])
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    # An IPPROTO_RAW socket takes packets with their IP header: raw(7), RFC 3542 section 3.
    with host.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(bytes(ip / content), (destination[0], 0))
