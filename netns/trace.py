"""Packets one after the other, and what each means in its connection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .packet import Packet

if TYPE_CHECKING:
    from .capture import Frame

_MODULUS = 1 << 32


@dataclass
class _Side:
    """What one side of a connection has shown: its initial sequence number, and what the other has acknowledged."""

    initial: int
    acknowledged: int | None = None


@dataclass
class _Connection:
    """One of the connections between two addresses and ports, and its sides by address and port."""

    incarnation: int
    sides: dict[tuple, _Side] = field(default_factory=dict)

    def is_over(self, source: tuple, packet: Packet) -> bool:
        """Whether this packet begins the next one: a SYN that repeats none (and is not the other half of a
        simultaneous open; RFC 9293, 3.5)."""
        side = self.sides.get(source)
        opens = "S" in packet.flags and "A" not in packet.flags
        return opens and side is not None and side.initial != packet.seq


class Trace:
    """All packets of a host from its first on, which is what gives TCP numbers their meaning."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self._connections: dict[frozenset, _Connection] = {}

    def extend(self, frames: Sequence["Frame"], interfaces: Mapping[int, str]) -> None:
        """Add the frames that came next; `interfaces` names interfaces by index."""
        for frame in frames:
            self.append(Packet(frame, interfaces.get(frame.interface, f"interface {frame.interface}, gone")))

    def append(self, packet: Packet) -> None:
        """Add the packet that came next, and say what the earlier ones make of it."""
        self.packets.append(packet)
        if packet.tcp is not None:
            self._follow(packet)

    def _follow(self, packet: Packet) -> None:
        tcp = packet.tcp
        here, there = (packet.ip.src, tcp.sport), (packet.ip.dst, tcp.dport)
        pair = frozenset((here, there))
        connection = self._connections.setdefault(pair, _Connection(1))
        if connection.is_over(here, packet):
            connection = self._connections[pair] = _Connection(connection.incarnation + 1)
        packet.incarnation = connection.incarnation
        sides = connection.sides
        if "S" in packet.flags:
            sides[here] = _Side(tcp.seq)
        side = sides.setdefault(here, _Side(tcp.seq))
        packet.relative_seq = _distance(side.initial, tcp.seq)
        packet.is_probe = (
            packet.flags == "A" and packet.length == 0
            and side.acknowledged is not None and _distance(side.acknowledged, tcp.seq) == -1
        )
        if "A" in packet.flags and there in sides:
            sides[there].acknowledged = tcp.ack
            packet.relative_ack = _distance(sides[there].initial, tcp.ack)


def _distance(start: int, end: int) -> int:
    """From one sequence number to another, negative if it lies before. Source: RFC 9293, 3.4."""
    return (end - start + _MODULUS // 2) % _MODULUS - _MODULUS // 2
