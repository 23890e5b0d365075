"""Recorded packets, decoded by scapy on demand."""

import io
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from scapy.data import DLT_EN10MB
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapWriter

_PACKET_OUTGOING = 4
_ICMP, _TCP_PROTOCOL, _ESP, _ICMPV6 = 1, 6, 50, 58
_PROTOCOLS = {_ICMP: "icmp", _TCP_PROTOCOL: "tcp", 17: "udp", _ESP: "esp", _ICMPV6: "icmpv6"}
PROTOCOLS = tuple(_PROTOCOLS.values())
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
# IPv6 extension headers before that of the protocol: hop-by-hop options, routing, destination options; and the fragment header.
_EXTENSIONS, _FRAGMENT = (0, 43, 60), 44
# Ports, sequence and acknowledgment number, data offset, flags (RFC 9293, 3.1).
_TCP = struct.Struct("!2s2sIIBB")
# Bytes of a pcap file before its first packet, and before each (pcap-savefile(5)).
_PCAP_HEADER, _PCAP_RECORD = 24, 16
_TCP_HEADER = 20
_END, _NOP, _MSS, _WSCALE, _SACK_OK, _SACK, _TIMESTAMPS, _MD5 = 0, 1, 2, 3, 4, 5, 8, 19


class Frame(NamedTuple):
    """One recorded packet, undecoded. `nanoseconds` is the kernel's timestamp (CLOCK_REALTIME), `length` the packet's in
    bytes, `data` its first bytes. In an `unfinished` one the TCP or UDP checksum covers only the pseudo-header; the
    interface is left to complete it."""

    nanoseconds: int
    interface: int
    direction: int
    length: int
    data: bytes
    unfinished: bool = False


class Segment(NamedTuple):
    """The fields that TCP's rules need, read without scapy: most packets are only tracked, never shown.

    `source` and `destination` are address and port in bytes, `payload` is the number of data bytes on the wire, `options`
    are the raw header options.
    """

    source: bytes
    destination: bytes
    seq: int
    ack: int
    flags: str
    payload: int
    options: bytes


class Upper(NamedTuple):
    """What an IP packet carries: the number of the protocol, None if it cannot be told; where its header begins in the frame; and
    `fragment`, the offset in bytes of what a fragment carries, None for a packet that is whole."""

    protocol: int | None
    at: int
    fragment: int | None

    @property
    def begins(self) -> bool:
        """Whether the protocol's header is in this packet."""
        return not self.fragment


def _upper(data: bytes) -> Upper | None:
    """Follow the extension headers (RFC 8200, 4.1) to what the packet carries; None if it is no IP packet."""
    if data[12:14] == _IPV4:
        bits = int.from_bytes(data[20:22], "big")
        return Upper(data[23], 14 + 4 * (data[14] & 15), 8 * (bits & 0x1FFF) if bits & 0x3FFF else None)
    if data[12:14] != _IPV6:
        return None
    protocol, at, fragment = data[20], 14 + 40, None
    while protocol in (*_EXTENSIONS, _FRAGMENT):
        if len(data) < at + 8 or fragment:
            return Upper(None, at, fragment)  # further headers were not recorded, or are in the first fragment
        if protocol == _FRAGMENT:
            fragment, size = int.from_bytes(data[at + 2:at + 4], "big") & 0xFFF8, 8
        else:
            size = 8 * (data[at + 1] + 1)
        protocol, at = data[at], at + size
    return Upper(protocol, at, fragment)


@dataclass
class Packet:
    """One packet as a host saw it. `time` is the kernel's timestamp in seconds of CLOCK_REALTIME; `layers` is scapy's view.

    The TCP fields raise AttributeError on a packet without TCP. `relative_seq` and `relative_ack` count from the
    initial sequence number of each side; `is_probe` marks a keepalive probe (RFC 9293, 3.8.4). `incarnation` numbers
    successive connections between the same two addresses and ports; it is 0 without TCP. The TCP options are None where
    the segment does not have them.
    """

    frame: Frame = field(repr=False)
    interface: str
    relative_seq: int = 0
    relative_ack: int = 0
    is_probe: bool = False
    incarnation: int = 0

    @property
    def time(self) -> float:
        return self.frame.nanoseconds / 1e9

    @property
    def sent(self) -> bool:
        """Whether the recording host sent it."""
        return self.frame.direction == _PACKET_OUTGOING

    @property
    def ethertype(self) -> int:
        return int.from_bytes(self.frame.data[12:14], "big")

    @cached_property
    def layers(self) -> Ether:
        return Ether(self.frame.data)

    @property
    def source(self) -> str | None:
        """The source address of an IP packet; None for any other packet."""
        return self._addresses[0]

    @property
    def destination(self) -> str | None:
        return self._addresses[1]

    @cached_property
    def _addresses(self) -> tuple[str, str] | tuple[None, None]:
        if self._upper is None:
            return None, None
        start, length, family = (26, 4, socket.AF_INET) if self.frame.data[12:14] == _IPV4 else (22, 16, socket.AF_INET6)
        return tuple(socket.inet_ntop(family, self.frame.data[at:at + length]) for at in (start, start + length))

    @cached_property
    def icmp(self) -> bytes | None:
        """The ICMP or ICMPv6 message, from its type on; None for any other packet and for fragments after the first."""
        carries_it = self.protocol in ("icmp", "icmpv6") and self._upper.begins
        return self.frame.data[self._upper.at:] if carries_it else None

    @cached_property
    def ip(self) -> IP | IPv6 | None:
        return self.layers.getlayer(IP) or self.layers.getlayer(IPv6)

    @property
    def protocol(self) -> str | None:
        """What IP carries, behind any IPv6 extension headers: one of PROTOCOLS, or None. A fragment is of the protocol of what was
        fragmented; see `fragment`."""
        return _PROTOCOLS.get(self._upper.protocol) if self._upper else None

    @property
    def fragment(self) -> int | None:
        """The offset of a fragment in bytes, 0 for the first one; None for a packet that is whole."""
        return self._upper.fragment if self._upper else None

    @cached_property
    def _upper(self) -> Upper | None:
        # Without scapy: for most packets only this is needed.
        return _upper(self.frame.data)

    @cached_property
    def tcp(self) -> TCP | None:
        return self.layers.getlayer(TCP) if self.protocol == "tcp" else None

    @cached_property
    def segment(self) -> Segment | None:
        """The TCP segment; None for other protocols and for fragments after the first."""
        data = self.frame.data
        if self.protocol != "tcp" or not self._upper.begins or len(data) < self._upper.at + _TCP.size:
            return None
        start = self._upper.at
        if data[12:14] == _IPV4:
            addresses, total = data[26:34], int.from_bytes(data[16:18], "big") + 14
        else:
            addresses, total = data[22:54], int.from_bytes(data[18:20], "big") + 14 + 40
        sport, dport, seq, ack, offset, bits = _TCP.unpack_from(data, start)
        half = len(addresses) // 2
        flags = "".join(letter for bit, letter in enumerate("FSRPAUEC") if bits >> bit & 1)
        return Segment(addresses[:half] + sport, addresses[half:] + dport, seq, ack, flags, total - start - 4 * (offset >> 4),
                       data[start + _TCP_HEADER:start + 4 * (offset >> 4)])

    @property
    def flags(self) -> str:
        """The first letters of the TCP flags, such as "RA"."""
        return self._tcp_segment().flags

    @property
    def sport(self) -> int:
        return int.from_bytes(self._tcp_segment().source[-2:], "big")

    @property
    def dport(self) -> int:
        return int.from_bytes(self._tcp_segment().destination[-2:], "big")

    @property
    def seq(self) -> int:
        return self._tcp_segment().seq

    @property
    def ack(self) -> int:
        return self._tcp_segment().ack

    def _tcp_segment(self) -> Segment:
        if self.segment is None:
            raise AttributeError("no TCP segment begins in this packet")
        return self.segment

    @property
    def mss(self) -> int | None:
        """The maximum segment size in bytes (RFC 9293, 3.7.1)."""
        option = self._options.get(_MSS)
        return option and int.from_bytes(option, "big")

    @property
    def wscale(self) -> int | None:
        """The window scale, the number of bits to shift (RFC 7323, 2.2)."""
        option = self._options.get(_WSCALE)
        return option and option[0]

    @property
    def window(self) -> int:
        """The window field, unscaled."""
        self._tcp_segment()
        return int.from_bytes(self.frame.data[self._upper.at + 14:self._upper.at + 16], "big")

    @property
    def sack_ok(self) -> bool:
        """Whether it has the SACK-permitted option (RFC 2018, 2)."""
        return _SACK_OK in self._options

    @property
    def sacks(self) -> bool:
        """Whether it has a SACK option (RFC 2018, 3)."""
        return _SACK in self._options

    @property
    def signed(self) -> bool:
        """Whether it has the MD5 signature option (RFC 2385)."""
        return _MD5 in self._options

    @property
    def timestamps(self) -> tuple[int, int] | None:
        """TSval and TSecr (RFC 7323, 3.2)."""
        option = self._options.get(_TIMESTAMPS)
        return option and struct.unpack("!II", option)

    @cached_property
    def _options(self) -> dict[int, bytes]:
        """The values of the TCP options by their kind, up to one that is cut off or has an impossible length."""
        options, at, found = self._tcp_segment().options, 0, {}
        while at < len(options) and options[at] != _END:
            if options[at] == _NOP:
                at += 1
                continue
            length = options[at + 1] if at + 1 < len(options) else 0
            if length < 2 or at + length > len(options):
                break
            found.setdefault(options[at], options[at + 2:at + length])
            at += length
        return found

    @property
    def spi(self) -> int:
        """The SPI, the first four bytes of ESP (RFC 4303, 2.1). Raises AttributeError without ESP."""
        if self.protocol != "esp" or not self._upper.begins:
            raise AttributeError("no ESP begins in this packet")
        return int.from_bytes(self.frame.data[self._upper.at:self._upper.at + 4], "big")

    @property
    def esp_sequence(self) -> int:
        """The sequence number of ESP, the lower 32 bits of one that is extended (RFC 4303, 2.2). Raises like `spi`."""
        if self.protocol != "esp" or not self._upper.begins:
            raise AttributeError("no ESP begins in this packet")
        return int.from_bytes(self.frame.data[self._upper.at + 4:self._upper.at + 8], "big")

    @property
    def length(self) -> int:
        """Bytes of TCP payload on the wire, even if fewer were recorded."""
        return self._tcp_segment().payload

    def summary(self, names: Mapping[str, str]) -> str:
        """Source and destination (by role if `names` has the address), the connection if not the first, and the contents."""
        if self.tcp is None:
            return self.layers.summary()
        source, destination = (names.get(address, address) for address in (self.ip.src, self.ip.dst))
        return (
            f"{source}:{self.tcp.sport} > {destination}:{self.tcp.dport}"
            f"{f' #{self.incarnation}' if self.incarnation > 1 else ''} [{self.flags}]"
            f" seq {self.relative_seq} ack {self.relative_ack} len {self.length} win {self.tcp.window}"
            f"{' keepalive probe' if self.is_probe else ''}"
        )

    def __repr__(self) -> str:
        return f"<{self.time:.6f} {self.summary({})}>"


def pcap(frames: Sequence[Frame], limit: int) -> tuple[bytes, int]:
    """A pcap file of at most `limit` bytes with the latest packets, and the number of earlier ones that did not fit.

    Timestamps are in nanoseconds; packets are truncated to what was recorded.
    """
    room, first = limit - _PCAP_HEADER, len(frames)
    while first and (room := room - _PCAP_RECORD - len(frames[first - 1].data)) >= 0:
        first -= 1
    file = io.BytesIO()
    writer = RawPcapWriter(file, linktype=DLT_EN10MB, nano=True)
    writer.write_header(None)
    for frame in frames[first:]:
        seconds, nanoseconds = divmod(frame.nanoseconds, 1_000_000_000)
        writer.write_packet(frame.data, seconds, nanoseconds, wirelen=frame.length)
    return file.getvalue(), first
