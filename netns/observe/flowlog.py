"""All packets that the hosts of a network sent, in order of time."""

import copy
from bisect import bisect

from netns.hosts.host import Host
from netns.hosts.topology import Network
from netns.observe.trace import Trace
from netns.packets.packet import Packet


class FlowLog:
    """One line for each packet that a host sent, at each hop, and for each that came in from outside (a tun device).

    Connections that reuse a pair of ports are numbered: "#2" is the second.
    """

    def __init__(self, network: Network) -> None:
        self._names = network.names()
        self._hosts = network.hosts.values()
        recorded = [(packet, host) for host in self._hosts for packet in host.ring.trace().packets]
        self._recorded = sorted(recorded, key=_time)
        # Only the packets of all hosts together tell which connection each belongs to.
        self._trace = Trace()
        self._senders = []
        for packet, host in self._recorded:
            if packet.sent or not _seen_elsewhere(packet, host):
                self._trace.append(copy.copy(packet))
                self._senders.append(f"{host.role} {packet.interface}{'' if packet.sent else ' in'}")

    @property
    def began(self) -> float:
        """The time of the first packet, in seconds, where the log starts. Clock: CLOCK_REALTIME."""
        return self._recorded[0][0].time if self._recorded else 0.0

    def describe(self, most: int) -> str:
        """One line for each of the last `most` packets: time, sender and interface, contents."""
        lines = [f"{host.ring.lost} packets of {host.role} lost by its ring" for host in self._hosts if host.ring.lost]
        packets = self._trace.packets
        if len(packets) > most:
            lines.append(f"({len(packets) - most} earlier packets left out)")
        width = max(map(len, self._senders), default=0)
        for packet, sender in list(zip(packets, self._senders))[-most:]:
            lines.append(f"{packet.time - self.began:12.6f} {sender:{width}} {packet.summary(self._names)}")
        return "\n".join(lines)

    def last_receiver(self, before: float, ethertype: int) -> Host | None:
        """The host that last received a packet of this EtherType before that time (CLOCK_REALTIME, seconds)."""
        earlier = bisect(self._recorded, before, key=_time)
        return next((
            host for packet, host in reversed(self._recorded[:earlier])
            if not packet.sent and packet.ethertype == ethertype
        ), None)


def _time(entry: tuple[Packet, Host]) -> float:
    return entry[0].time


def _seen_elsewhere(packet: Packet, host: Host) -> bool:
    """Whether the log also has this received packet as a sent one."""
    return packet.interface == "lo" or any(packet.interface == each.name for each in host.interfaces.values())
