"""Packets made by hand whose fields refer to what a socket has sent: segments of its peer, and ICMP errors about its packets."""

import socket
import struct
from typing import NamedTuple

from netns.hosts.host import Host
from netns.packets import segment
from netns.packets.icmp import checksum
from netns.packets.packet import Frame, Packet

_OUTGOING, _ETHERNET, _QUOTED = 4, 14, 128
# A peer that has not been heard of yet would begin with this sequence number.
_FIRST_SEQ = 1_000_000
# Type and code by family: RFC 792, RFC 4443. ICMPv6 lacks some of ICMP's errors; the closest one stands for each.
ERRORS = {
    socket.AF_INET: {
        "net-unreachable": (3, 0), "host-unreachable": (3, 1), "protocol-unreachable": (3, 2), "port-unreachable": (3, 3),
        "frag-needed": (3, 4), "source-route-failed": (3, 5), "admin-prohibited": (3, 13), "time-exceeded": (11, 0),
        "parameter-problem": (12, 0), "source-quench": (4, 0)},
    socket.AF_INET6: {
        "net-unreachable": (1, 0), "host-unreachable": (1, 3), "protocol-unreachable": (4, 1), "port-unreachable": (1, 4),
        "frag-needed": (2, 0), "source-route-failed": (1, 5), "admin-prohibited": (1, 1), "time-exceeded": (3, 0),
        "parameter-problem": (4, 0), "source-quench": (1, 6)},
}


class SentFlow(NamedTuple):
    """What a socket has sent: its last packet, and for TCP the next sequence number of either side as the socket sees it."""

    last: Frame
    local: tuple[str, int]
    remote: tuple[str, int]
    sent: int                               # after its last byte
    expected: int                           # of its peer


def flow(host: Host, sock: socket.socket) -> SentFlow | None:
    """The flow of a socket's own packets in the host's ring; None if it has sent none."""
    protocol = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}.get(sock.type)
    try:
        port = sock.getsockname()[1]
    except OSError:
        return None
    host.ring.drain()
    found = None
    for frame in host.ring.frames:
        if frame.direction != _OUTGOING:
            continue
        packet = Packet(frame, "")
        if protocol == "tcp" and packet.segment:
            sent = packet.segment
            if int.from_bytes(sent.source[-2:], "big") != port:
                continue
            after = sent.seq + sent.payload + ("S" in sent.flags) + ("F" in sent.flags)
            remote = (packet.destination, int.from_bytes(sent.destination[-2:], "big"))
            expected = sent.ack if "A" in sent.flags else found.expected if found and found.remote == remote else _FIRST_SEQ
            found = SentFlow(frame, (packet.source, port), remote, after, expected)
        elif protocol == "udp" and packet.protocol in ("udp", "icmp", "icmpv6") and packet.fragment is None:
            at = _ETHERNET + (20 if frame.data[_ETHERNET] >> 4 == 4 else 40)
            # A ping socket's port is the identifier of its echo requests.
            own, = struct.unpack_from("!H", frame.data, at if packet.protocol == "udp" else at + 4)
            if own == port:
                found = SentFlow(frame, (packet.source, port), (packet.destination, 0), 0, 0)
    return found


def send_segment(sender: Host, seen: SentFlow, flags: str, seq: int = 0, ack: int = 0, window: int = 1000, size: int = 0,
                 bad_checksum: bool = False, ttl: int = 64) -> None:
    """Send a segment to the socket of the flow. `seq` and `ack` are bytes from what it expects next and has sent last. Raises OSError."""
    source, destination = seen.remote, seen.local
    number = seen.sent + ack if "A" in flags else 0
    packed = segment.packed(source, destination, flags, seen.expected + seq, number, window, bytes(size))
    if bad_checksum:
        packed = packed[:17] + bytes([packed[17] ^ 1]) + packed[18:]
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    with sender.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setblocking(False)
        raw.sendto(segment.with_ip_header(family, source[0], destination[0], socket.IPPROTO_TCP, packed, ttl=ttl), (destination[0], 0))


def send_icmp(sender: Host, seen: SentFlow, error: str, mtu: int = 0, seq: int = 0) -> None:
    """Send an ICMP error about the socket's last packet from the sender's own address; `mtu` is its parameter, and `seq` is added to the
    sequence number that it quotes. Raises OSError."""
    quoted = bytearray(seen.last.data[_ETHERNET:_ETHERNET + _QUOTED])
    v6 = quoted[0] >> 4 == 6
    if seq:
        at = (40 if v6 else 20) + 4
        quoted[at:at + 4] = ((int.from_bytes(quoted[at:at + 4], "big") + seq) % 2**32).to_bytes(4, "big")
    family = socket.AF_INET6 if v6 else socket.AF_INET
    kind, code = ERRORS[family][error]
    message = struct.pack("!BBHI", kind, code, 0, mtu) + bytes(quoted)
    if not v6:
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    with sender.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP) as raw:
        raw.setblocking(False)
        raw.sendto(message, (seen.local[0], 0))
