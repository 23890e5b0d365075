"""Segments and datagrams that no socket sends: old duplicates, late RSTs, forgeries."""

import socket
import struct

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
    # Two of no operation before it, as RFC 7323 appendix A recommends.
    options = struct.pack("!BBBBII", 1, 1, 8, 10, *(each % 2**32 for each in timestamps)) if timestamps else b""
    segment = packed(source, destination, flags, seq, ack, window, options + payload, len(options))
    _send(host, source, destination, socket.IPPROTO_TCP, segment)


def send_datagram(host: Host, source: Endpoint, destination: Endpoint) -> None:
    """Like send(), for a UDP datagram without data. Raises OSError."""
    datagram = struct.pack("!HHHH", source[1], destination[1], 8, 0)
    number = transport_checksum(source[0], destination[0], socket.IPPROTO_UDP, datagram) or 0xFFFF      # 0 says that there is none
    _send(host, source, destination, socket.IPPROTO_UDP, datagram[:6] + struct.pack("!H", number))


def _send(host: Host, source: Endpoint, destination: Endpoint, protocol: int, content: bytes) -> None:
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    # An IPPROTO_RAW socket takes packets with their IP header: raw(7), RFC 3542 section 3.
    with host.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(with_ip_header(family, source[0], destination[0], protocol, content, ident=1, fragment=0), (destination[0], 0))


def packed(
    source: Endpoint, destination: Endpoint, flags: str, seq: int, ack: int, window: int, rest: bytes, options: int = 0
) -> bytes:
    """A segment with its checksum; `rest` begins with so many bytes of options. Numbers are taken modulo 2**32."""
    bits = sum(_FLAGS[flag] for flag in set(flags))
    segment = struct.pack("!HHIIBBHHH", source[1], destination[1], seq % 2**32, ack % 2**32, (20 + options) << 2, bits, window, 0, 0) + rest
    number = transport_checksum(source[0], destination[0], socket.IPPROTO_TCP, segment)
    return segment[:16] + struct.pack("!H", number) + segment[18:]


def with_ip_header(family: int, source: str, destination: str, protocol: int, content: bytes, ident: int = 0, fragment: int = 0x4000,
                   ttl: int = 64) -> bytes:
    """A packet with its IP header. The kernel fills in the checksum of IPv4 and, where it is 0, the identification: raw(7)."""
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    if family == socket.AF_INET:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), ident, fragment, ttl, protocol, 0)
    else:
        header = struct.pack("!IHBB", 0x60000000, len(content), protocol, ttl)
    return header + addresses + content


class Injector:
    """Like send(), for thousands of segments: one raw socket, and headers without options."""

    def __init__(self, host: Host, family: socket.AddressFamily) -> None:
        self.family = family
        self.raw = host.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def send(
        self, source: Endpoint, destination: Endpoint, flags: str, seq: int, ack: int = 0, payload: bytes = b"", window: int = 1000
    ) -> None:
        """Send one segment. Raises OSError."""
        segment = packed(source, destination, flags, seq, ack, window, payload)
        self.raw.sendto(with_ip_header(self.family, source[0], destination[0], socket.IPPROTO_TCP, segment), (destination[0], 0))
