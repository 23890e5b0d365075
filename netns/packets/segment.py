"""Segments and datagrams that no socket sends: old duplicates, late RSTs, forgeries."""

import socket
import struct

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from netns.hosts.host import Host
from netns.packets.icmp import transport_checksum

Endpoint = tuple[str, int]
_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}


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


class Injector:
    """Like send(), for thousands of segments: one raw socket, and headers without options."""

    def __init__(self, host: Host, family: socket.AddressFamily) -> None:
        self.family = family
        self.raw = host.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def send(
        self, source: Endpoint, destination: Endpoint, flags: str, seq: int, ack: int = 0, payload: bytes = b"", window: int = 1000
    ) -> None:
        """Send one segment. Raises OSError."""
        bits = sum(_FLAGS[flag] for flag in flags)
        segment = struct.pack("!HHIIBBHHH", source[1], destination[1], seq % 2**32, ack % 2**32, 0x50, bits, window, 0, 0) + payload
        number = transport_checksum(source[0], destination[0], socket.IPPROTO_TCP, segment)
        segment = segment[:16] + struct.pack("!H", number) + segment[18:]
        addresses = socket.inet_pton(self.family, source[0]) + socket.inet_pton(self.family, destination[0])
        if self.family == socket.AF_INET:
            header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, socket.IPPROTO_TCP, 0)
        else:
            header = struct.pack("!IHBB", 0x60000000, len(segment), socket.IPPROTO_TCP, 64)
        self.raw.sendto(header + addresses + segment, (destination[0], 0))
