"""A peer without a TCP of its own: the test writes each of its segments, and nothing answers what it receives.

Its address is behind the `client`, which neither has it nor forwards to it. One raw socket sends all segments, without scapy: a table
sends hundreds.
"""

import errno
import hashlib
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from netns.errors import MissingFeature
from netns.hosts.host import Host
from netns.named import NamedList
from netns.packets import icmp
from netns.packets.packet import Packet

ADDRESSES = {socket.AF_INET: "198.51.100.7", socket.AF_INET6: "2001:db8:2::7"}
# The window that the peer announces, in bytes, unscaled.
WINDOW = 60000
_MSS = b"\2\4\5\xb4"
_TIMESTAMPS = struct.Struct("!4B2I")
_MD5, _TCP_MD5SIG = 19, 14
_FIRST_TSVAL = 1_000_000
_BITS = {letter: 1 << bit for bit, letter in enumerate("FSRPAUEC")}
_FIRST_PORT, _FIRST_SEQ = 20000, 500_000_000


class Peer:
    """The peer of `host`, which is under test, behind `client`. All connections are to its one address; each has a port of its own."""

    def __init__(self, client: Host, host: Host, family: int, metrics: Sequence[str] = ("rto_min", "20s", "quickack", "1")) -> None:
        """Routes to the peer are made on both hosts. The `metrics` of the host's own are those of ip-route(8): by default no
        retransmission comes within 20 s, and each segment is acknowledged at once."""
        self.host, self.family, self.address = host, family, ADDRESSES[family]
        ip = ["ip", "-6" if family == socket.AF_INET6 else "-4", "route", "add"]
        client.run([*ip, "blackhole", self.address])
        host.run([*ip, self.address, "via", client.address(family), *metrics])
        self._raw = client.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._inbox, self._outbox = host.socket(family, socket.SOCK_DGRAM), client.socket(family, socket.SOCK_DGRAM)
        self._inbox.bind((host.address(family), 0))
        self._inbox.settimeout(10)
        self._ports = count(_FIRST_PORT)
        self.key: bytes | None = None

    def line(self, port: int, timestamps: bool = False) -> "Line":
        """A connection, not yet begun, between the host's `port` and a new port of the peer. With a `key` of the peer its segments are
        signed."""
        tsval = _FIRST_TSVAL if timestamps else None
        return Line(self, next(self._ports), port, snd=_FIRST_SEQ, tsval=tsval, key=self.key)

    def connect(self, conn: socket.socket, timestamps: bool = False) -> "Line":
        """The connection that `conn` of the host, nonblocking, begins with a SYN."""
        line = self.line(0, timestamps)
        with self.hearing(line) as heard:
            status = conn.connect_ex((self.address, line.peer_port))
        if status != errno.EINPROGRESS:
            raise OSError(status, "connect()")
        line.port = heard.only().sport
        return line

    def transmit(self, segment: bytes) -> None:
        """Send a TCP segment, its checksum yet to be filled in, to the host. Raises OSError."""
        here, there, pseudo = self._pseudo_header(len(segment))
        if self.family == socket.AF_INET:
            # The kernel fills in the length, the identification and the checksum: raw(7).
            header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0) + here + there
        else:
            header = struct.pack("!IHBB", 6 << 28, len(segment), socket.IPPROTO_TCP, 64) + here + there
        checksum = struct.pack("!H", icmp.checksum(pseudo + segment))
        self._raw.sendto(header + segment[:16] + checksum + segment[18:], (self.host.address(self.family), 0))

    def _pseudo_header(self, length: int) -> tuple[bytes, bytes, bytes]:
        """Both addresses, and the pseudo-header of a segment of this length (RFC 9293, 3.1; RFC 8200, 8.1)."""
        here, there = (socket.inet_pton(self.family, each) for each in (self.address, self.host.address(self.family)))
        rest = ("!BBH", 0, socket.IPPROTO_TCP, length) if self.family == socket.AF_INET else ("!II", length, socket.IPPROTO_TCP)
        return here, there, here + there + struct.pack(*rest)

    def digest(self, header: bytes, options: int, payload: bytes, key: bytes) -> bytes:
        """The MD5 signature of a segment with so many bytes of options (RFC 2385, 2)."""
        pseudo = self._pseudo_header(len(header) + options + len(payload))[2]
        return hashlib.md5(pseudo + header + payload + key).digest()

    def sign(self, conn: socket.socket, key: bytes) -> None:
        """Give the host's socket this key for the peer's address (TCP_MD5SIG, tcp(7)). Raises OSError; MissingFeature without
        CONFIG_TCP_MD5SIG."""
        address = socket.inet_pton(self.family, self.address)
        where = struct.pack("=HH", self.family, 0) + (address if self.family == socket.AF_INET else bytes(4) + address)
        # struct tcp_md5sig of include/uapi/linux/tcp.h.
        request = struct.pack("=128s2xH4x80s", where, len(key), key)
        try:
            conn.setsockopt(socket.IPPROTO_TCP, _TCP_MD5SIG, request)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
            raise MissingFeature("the kernel has no TCP_MD5SIG (CONFIG_TCP_MD5SIG)") from error

    def fence(self) -> None:
        """Wait until the host has processed all that was sent: a datagram follows it."""
        self._outbox.sendto(b"x", self._inbox.getsockname()[:2])
        self._inbox.recv(1)

    @contextmanager
    def hearing(self, line: "Line") -> Iterator[NamedList]:
        """A list that holds, after the block, what the host has sent in it on this connection."""
        heard = NamedList(f"segments that {self.host.role} sent to port {line.peer_port}")
        with self.host.capture("tcp") as packets:
            yield heard
            self.fence()
        heard.extend(packet for packet in packets.sent() if packet.dport == line.peer_port)
        line.heard(heard)


@dataclass
class Line:
    """A connection of the peer: `snd` is its next sequence number, `rcv` the next that the host will send, `edge` where the window
    that the host has announced ends. `tsval` is the next TSval, None without timestamps; `tsecr` is the host's latest TSval. With a `key`
    the segments are signed (RFC 2385)."""

    peer: Peer
    peer_port: int
    port: int
    snd: int
    rcv: int = 0
    edge: int = 0
    tsval: int | None = None
    tsecr: int = 0
    key: bytes | None = None

    @property
    def timestamps(self) -> tuple[int, int] | None:
        """TSval and TSecr of the next segment in order."""
        return None if self.tsval is None else (self.tsval, self.tsecr)

    def heard(self, packets: Sequence[Packet]) -> None:
        """Take note of what the host has sent."""
        for packet in packets:
            if "R" not in packet.flags:
                self.rcv = (packet.seq + packet.length + ("S" in packet.flags) + ("F" in packet.flags)) % 2**32
                self.edge = (packet.ack + packet.window) % 2**32
                self.tsecr = packet.timestamps[0] if packet.timestamps else 0

    def write(
        self, flags: str, seq: int, ack: int, payload: bytes = b"", timestamps: tuple[int, int] | None = None, options: bytes = b"",
        window: int = WINDOW
    ) -> None:
        """Send a segment with exactly these numbers, taken modulo 2**32; it changes no numbers here. `flags` are first letters, as in
        "FA"; `timestamps` are TSval and TSecr."""
        if self.key is not None:
            options += bytes((1, 1, _MD5, 18)) + bytes(16)
        if timestamps is not None:
            options += _TIMESTAMPS.pack(1, 1, 8, 10, *(each % 2**32 for each in timestamps))
        bits = sum(_BITS[letter] for letter in flags)
        header = struct.pack("!HHIIBBHHH", self.peer_port, self.port, seq % 2**32, ack % 2**32, (20 + len(options)) // 4 << 4, bits,
                             window, 0, 0)
        if self.key is not None:
            at = options.index(bytes((1, 1, _MD5, 18))) + 4
            options = options[:at] + self.peer.digest(header, len(options), payload, self.key) + options[at + 16:]
        self.peer.transmit(header + options + payload)

    def say(self, flags: str, payload: bytes = b"", options: bytes = b"") -> NamedList:
        """Send the next segment in order, and return what the host answers."""
        with self.peer.hearing(self) as heard:
            self.write(flags, self.snd, self.rcv if "A" in flags else 0, payload, self.timestamps, options)
        self.snd = (self.snd + len(payload) + ("S" in flags) + ("F" in flags)) % 2**32
        return heard

    def open(self, options: bytes = _MSS) -> Packet:
        """Begin a connection: the SYN. Returns the SYN-ACK."""
        return self.say("S", options=options).only()

    def establish(self, listener: socket.socket) -> socket.socket:
        """Connect to a listener of the host, and accept. Returns the host's socket, nonblocking."""
        self.open()
        self.say("A")
        listener.settimeout(10)
        conn = self.peer.host.adopt(listener.accept()[0])
        conn.setblocking(False)
        return conn
