"""Packets made by hand whose fields refer to what a socket has sent: segments of its peer, and ICMP errors about its packets."""

import ipaddress
import socket
import struct
from typing import NamedTuple

from netns.hosts.host import Host
from netns.packets.icmp import checksum, transport_checksum
from netns.packets.packet import Frame, Packet

_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}
_OUTGOING, _ETHERNET, _QUOTED = 4, 14, 128
# A peer that has not been heard of yet would begin with this sequence number.
_FIRST_SEQ = 1_000_000
# Type and code by family: RFC 792, RFC 4443. IPv6 has no word for some; the next of kin stands for them.
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
            segment = packet.segment
            if int.from_bytes(segment.source[-2:], "big") != port:
                continue
            after = segment.seq + segment.payload + ("S" in segment.flags) + ("F" in segment.flags)
            remote = (packet.destination, int.from_bytes(segment.destination[-2:], "big"))
            expected = segment.ack if "A" in segment.flags else found.expected if found and found.remote == remote else _FIRST_SEQ
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
    bits = sum(_FLAGS[flag] for flag in set(flags))
    number = (seen.sent + ack) % 2**32 if "A" in flags else 0
    header = struct.pack("!HHIIBBHHH", source[1], destination[1], (seen.expected + seq) % 2**32, number, 0x50, bits, window, 0, 0)
    segment = header + bytes(size)
    right = transport_checksum(source[0], destination[0], socket.IPPROTO_TCP, segment)
    segment = segment[:16] + struct.pack("!H", right ^ bad_checksum) + segment[18:]
    _send_packet(sender, source[0], destination[0], socket.IPPROTO_TCP, segment, ttl)


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


def _send_packet(sender: Host, source: str, destination: str, protocol: int, payload: bytes, ttl: int) -> None:
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    if len(addresses) == 8:
        family, header = socket.AF_INET, struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, ttl, protocol, 0)
    else:
        family, header = socket.AF_INET6, struct.pack("!IHBB", 0x60000000, len(payload), protocol, ttl)
    with sender.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setblocking(False)
        raw.sendto(header + addresses + payload, (destination, 0))
