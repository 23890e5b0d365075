"""A packet ring that records a whole host, without a process, a thread or a kernel timer.

TPACKET_V2, not V3: V3 retires its blocks with a periodic timer, which would keep a clock that skips idle time from
skipping. Source: Documentation/networking/packet_mmap.rst, packet(7).
"""

import mmap
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from netns.errors import CaptureLost, ExpectationFailed
from netns.hosts.namespace import NetworkNamespace
from netns.named import NamedList
from netns.observe.trace import Trace
from netns.packets.packet import Frame, Packet, pcap
from netns.wait import check, poll, wanted

_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_TPACKET_V2 = 1
_ETH_P_ALL = 0x0003
_TP_STATUS_USER = 1
_TP_STATUS_CSUMNOTREADY = 8
# ARPHRD_ETHER and ARPHRD_LOOPBACK (include/uapi/linux/if_arp.h): interfaces with an Ethernet header.
_ETHERNET = (1, 772)

# 512 bytes hold the ring's own header and 446 bytes of the packet.
_FRAME = 512
_BLOCK = 65536

# struct tpacket2_hdr, then struct sockaddr_ll.
_HEADER = struct.Struct("=IIIHHIIHH4x HHiHBB8s")


class PacketRing:
    """Records what a host sends and receives on all its interfaces.

    It sees packets that a firewall drops on input, but not those that it drops on output.
    """

    SIZE = 2048                             # packets

    def __init__(self, role: str, namespace: NetworkNamespace, size: int = SIZE) -> None:
        """Up to `size` packets, a multiple of 128, fit in before they must be drained."""
        self.role, self.namespace, self._size = role, namespace, size
        self.frames: list[Frame] = []
        self.lost = 0
        self._next = 0
        self._captures = 0                  # that have not ended
        self._over = False
        self._names: dict[int, str] = {}
        self._trace = Trace()

    def __enter__(self) -> "PacketRing":
        with self.namespace.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        request = struct.pack("=IIII", _BLOCK, self._size * _FRAME // _BLOCK, _FRAME, self._size)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        self._ring = mmap.mmap(self._socket.fileno(), self._size * _FRAME)
        return self

    def __exit__(self, *_exception: object) -> None:
        """What captures have seen stays."""
        if self._captures:
            self.drain()
        self._names = self._interface_names()
        self._over = True
        self._ring.close()
        self._socket.close()

    def wait(self, seconds: float) -> None:
        """Wait up to `seconds` for a packet to drain."""
        select.select([self._socket], [], [], seconds)

    def drain(self) -> None:
        """Move the recorded packets out of the ring, to make room in a test with thousands of them."""
        if self._over:
            return
        ring, unpack = self._ring, _HEADER.unpack_from
        while True:
            offset = self._next * _FRAME
            status, length, kept, start, _net, seconds, nanoseconds, _tci, _tpid, \
                _family, protocol, interface, hardware, direction, _halen, _address = unpack(ring, offset)
            if not status & _TP_STATUS_USER:
                break
            start += offset
            data = ring[start:start + kept]
            if hardware not in _ETHERNET:
                # A tunnel's packets begin with IP; a zero Ethernet header makes all packets alike, in a pcap file too.
                data = bytes(12) + protocol.to_bytes(2, sys.byteorder) + data
                length += 14
            self.frames.append(Frame(
                seconds * 1_000_000_000 + nanoseconds, interface, direction, length, data, bool(status & _TP_STATUS_CSUMNOTREADY)))
            ring[offset:offset + 4] = b"\0\0\0\0"
            self._next = (self._next + 1) % self._size
        # Each reading resets these two counters.
        _received, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self.lost += dropped

    @contextmanager
    def span(self, protocol: str | None) -> Iterator["Capture"]:
        self.drain()
        capture = Capture(self, protocol, len(self.frames), self.lost)
        self._captures += 1
        try:
            yield capture
        finally:
            capture.stop()
            self._captures -= 1

    def trace(self) -> Trace:
        """All packets recorded so far, decoded."""
        self.drain()
        names = self._names if self._over else self._interface_names()
        self._trace.extend(self.frames[len(self._trace.packets):], names)
        return self._trace

    def _interface_names(self) -> dict[int, str]:
        with self.namespace.entered():
            return dict(socket.if_nameindex())

    def pcap(self, limit: int) -> tuple[bytes, int]:
        """The latest packets as a pcap file of at most `limit` bytes, and the number of earlier ones that did not fit."""
        self.drain()
        return pcap(self.frames, limit)


class Capture:
    """The packets of one span of a host's ring, decoded at first access.

    Access raises CaptureLost if the ring overflowed meanwhile: then the absence of a packet proves nothing.
    """

    def __init__(self, ring: PacketRing, protocol: str | None, first: int, lost_before: int) -> None:
        self._ring = ring
        self._protocol = protocol
        self._first = first
        self._lost_before = lost_before
        self._stopped_at: int | None = None
        self._lost = 0

    def stop(self) -> None:
        """End the capture: it contains no later packets."""
        self._ring.drain()
        self._stopped_at = len(self._ring.frames)
        self._lost = self._ring.lost - self._lost_before

    def packets(self) -> NamedList:
        """The packets, oldest first. Raises CaptureLost."""
        return NamedList(self.what, self._all())

    @property
    def what(self) -> str:
        """Its name in messages."""
        return self._named("of")

    def _named(self, relation: str) -> str:
        return f"{self._protocol + ' ' if self._protocol else ''}packets {relation} {self._ring.role}"

    def _all(self) -> list[Packet]:
        if self._stopped_at is None:
            self._ring.drain()
        lost = self._lost if self._stopped_at is not None else self._ring.lost - self._lost_before
        if lost:
            raise CaptureLost(f"{self._ring.role}: the packet ring overflowed and lost {lost} packets")
        # Earlier packets determine the relative sequence numbers of a connection.
        chosen = self._ring.trace().packets[self._first:self._stopped_at]
        return [packet for packet in chosen if self._protocol in (None, packet.protocol)]

    def sent(self) -> NamedList:
        return NamedList(self._named("sent by"), (packet for packet in self._all() if packet.sent))

    def received(self) -> NamedList:
        return NamedList(self._named("received by"), (packet for packet in self._all() if not packet.sent))

    def probes(self) -> NamedList:
        """The keepalive probes that the host sent: no data, and a sequence number that the peer has already acknowledged."""
        return NamedList(f"keepalive probes sent by {self._ring.role}", (packet for packet in self.sent() if packet.is_probe))

    def exactly(self, count: int) -> list[Packet]:
        """The packets, exactly `count` of them. Raises WrongCount."""
        return self.packets().exactly(count)

    def only(self) -> Packet:
        """The only packet. Raises WrongCount."""
        return self.packets().only()

    def until(self, what: str, observe: Callable[["Capture"], object], expected: object = True, *, within: float) -> object:
        """Wait up to `within` seconds until observe(capture) is as expected, looked at after each packet; returns that value. It is
        judged as in eventually(), see netns.wait.matches(): `until("a reset", resets, within=5)` waits for one in the list,
        `until("resets", lambda seen: len(resets(seen)), at_least(2), within=5)` for two.

        `what` names the value or, expected to be true, the condition: "2 keepalive probes". Raises ExpectationFailed with the name and the
        packets seen, CaptureLost; TypeError without a name.
        """
        check("until", what, observe, expected)
        met, value = poll(lambda: observe(self), expected, within, self._ring.wait)
        if not met:
            packets = self.packets()
            missing = f"expected {what} within {within:g} s" if expected is True else \
                f"expected {wanted(expected)} {what} within {within:g} s, last value {value!r}"
            raise ExpectationFailed(f"{packets.what}: {missing}; captured {len(packets)}{':' if packets else ''}"
                                    + "".join(f"\n{packet}" for packet in packets))
        return value

    def __iter__(self) -> Iterator[Packet]:
        return iter(self.packets())

    def __len__(self) -> int:
        return len(self.packets())

    def __str__(self) -> str:
        return "\n".join(map(str, self.packets()))
