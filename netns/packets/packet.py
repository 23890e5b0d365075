"""Recorded packets, decoded by scapy on demand."""

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

_PACKET_OUTGOING = 4
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 50: "esp", 58: "icmpv6"}
# Offset of the protocol in an Ethernet frame, by EtherType: IPv4's Protocol, IPv6's Next Header.
_IPV4 = b"\x08\x00"
_PROTOCOL_AT = {_IPV4: 14 + 9, b"\x86\xdd": 14 + 6}
# Ports, sequence and acknowledgment number, data offset, flags (RFC 9293, 3.1).
_TCP = struct.Struct("!2s2sIIBB")
_TCP_HEADER = 20
_END, _NOP, _SACK, _TIMESTAMPS = 0, 1, 5, 8


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


@dataclass
class Packet:
    """One packet as a host saw it. `time` is the kernel's timestamp in seconds of CLOCK_REALTIME; `layers` is scapy's view.

    The TCP fields raise AttributeError on a packet without TCP. `relative_seq` and `relative_ack` count from the
    initial sequence number of each side; `is_probe` marks a keepalive probe (RFC 9293, 3.8.4). `incarnation` numbers
    successive connections between the same two addresses and ports; it is 0 without TCP.
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
        if self.frame.data[12:14] not in _PROTOCOL_AT:
            return None, None
        start, length, family = (26, 4, socket.AF_INET) if self.frame.data[12:14] == _IPV4 else (22, 16, socket.AF_INET6)
        return tuple(socket.inet_ntop(family, self.frame.data[at:at + length]) for at in (start, start + length))

    @cached_property
    def icmp(self) -> bytes | None:
        """The ICMP or ICMPv6 message, from its type on; None for any other packet."""
        if self.protocol == "icmp":
            return self.frame.data[14 + 4 * (self.frame.data[14] & 15):]
        return self.frame.data[14 + 40:] if self.protocol == "icmpv6" else None

    @cached_property
    def ip(self) -> IP | IPv6 | None:
        return self.layers.getlayer(IP) or self.layers.getlayer(IPv6)

    @property
    def protocol(self) -> str | None:
        """The protocol of the first header after IP: "tcp", "udp", "esp", "icmp", "icmpv6", or None."""
        # Without scapy: for most packets only this is needed.
        where = _PROTOCOL_AT.get(self.frame.data[12:14])
        return _PROTOCOLS.get(self.frame.data[where]) if where else None

    @cached_property
    def tcp(self) -> TCP | None:
        return self.layers.getlayer(TCP) if self.protocol == "tcp" else None

    @cached_property
    def segment(self) -> Segment | None:
        """The TCP segment; None for other protocols and for fragments after the first."""
        data = self.frame.data
        if self.protocol != "tcp":
            return None
        if data[12:14] == _IPV4:
            start, addresses = 14 + 4 * (data[14] & 15), data[26:34]
            total = int.from_bytes(data[16:18], "big") + 14
            later_fragment = (data[20] & 0x1F) | data[21]
        else:
            start, addresses = 14 + 40, data[22:54]
            total = int.from_bytes(data[18:20], "big") + start
            later_fragment = 0
        if later_fragment or len(data) < start + _TCP.size:
            return None
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
    def timestamps(self) -> tuple[int, int] | None:
        """TSval and TSecr (RFC 7323); None without the option."""
        option = self._option(_TIMESTAMPS)
        return option and struct.unpack("!II", option)

    @property
    def sacks(self) -> bool:
        """Whether it has a SACK option (RFC 2018)."""
        return self._option(_SACK) is not None

    def _option(self, wanted: int) -> bytes | None:
        """The value of this TCP option; None without the option."""
        options, at = self._tcp_segment().options, 0
        while at < len(options) and options[at] != _END:
            if options[at] == _NOP:
                at += 1
                continue
            if options[at] == wanted:
                return options[at + 2:at + options[at + 1]]
            at += options[at + 1]
        return None

    @property
    def spi(self) -> int:
        """The SPI, the first four bytes of ESP (RFC 4303, 2.1)."""
        return int.from_bytes(bytes(self.ip.payload)[:4], "big")

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
    PCAP_NANOSECONDS, LINKTYPE_ETHERNET, LONGEST = 0xA1B23C4D, 1, 65535
    header = struct.pack("=IHHiIII", PCAP_NANOSECONDS, 2, 4, 0, 0, LONGEST, LINKTYPE_ETHERNET)
    room, records = limit - len(header), []
    for frame in reversed(frames):
        seconds, nanoseconds = divmod(frame.nanoseconds, 1_000_000_000)
        record = struct.pack("=IIII", seconds, nanoseconds, len(frame.data), frame.length) + frame.data
        room -= len(record)
        if room < 0:
            break
        records.append(record)
    return header + b"".join(reversed(records)), len(frames) - len(records)
