"""A host's packets in order, and their meaning in their connections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from netns.packets.packet import Frame, Packet, Segment

_MODULUS = 1 << 32


@dataclass
class _Side:
    """What one side of a connection has shown: its initial sequence number, and what the other side has acknowledged."""

    initial: int
    acknowledged: int | None = None


@dataclass
class _Connection:
    """One connection between two endpoints; `sides` is keyed by address and port."""

    incarnation: int
    sides: dict[tuple, _Side] = field(default_factory=dict)

    def is_over(self, segment: Segment) -> bool:
        """Whether this segment begins the next connection: a SYN that is no retransmission (nor the other half of a
        simultaneous open; RFC 9293, 3.5)."""
        side = self.sides.get(segment.source)
        opens = "S" in segment.flags and "A" not in segment.flags
        return opens and side is not None and side.initial != segment.seq


class Trace:
    """All packets of a host from the first on, which relative TCP numbers depend on."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self._connections: dict[frozenset, _Connection] = {}

    def extend(self, frames: Sequence[Frame], interfaces: Mapping[int, str]) -> None:
        """Add the next frames; `interfaces` maps indices to names."""
        for frame in frames:
            self.append(Packet(frame, interfaces.get(frame.interface, f"interface {frame.interface}, gone")))

    def append(self, packet: Packet) -> None:
        """Add the next packet, and derive its TCP fields from the earlier ones."""
        self.packets.append(packet)
        if packet.segment is not None:
            self._follow(packet, packet.segment)

    def _follow(self, packet: Packet, segment: Segment) -> None:
        here, there = segment.source, segment.destination
        pair = frozenset((here, there))
        connection = self._connections.setdefault(pair, _Connection(1))
        if connection.is_over(segment):
            connection = self._connections[pair] = _Connection(connection.incarnation + 1)
        packet.incarnation = connection.incarnation
        sides = connection.sides
        if "S" in segment.flags:
            sides[here] = _Side(segment.seq)
        side = sides.setdefault(here, _Side(segment.seq))
        packet.relative_seq = _distance(side.initial, segment.seq)
        packet.is_probe = (
            segment.flags == "A" and segment.payload == 0
            and side.acknowledged is not None and _distance(side.acknowledged, segment.seq) == -1
        )
        if "A" in segment.flags and there in sides:
            sides[there].acknowledged = segment.ack
            packet.relative_ack = _distance(sides[there].initial, segment.ack)


def _distance(start: int, end: int) -> int:
    """The distance between two sequence numbers, negative if `end` precedes `start`. Source: RFC 9293, 3.4."""
    return (end - start + _MODULUS // 2) % _MODULUS - _MODULUS // 2
