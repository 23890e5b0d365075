"""What a host counted, against the packets that it sent and received, as the MIBs define its counters (RFC 4293, RFC 2011).

Each rule holds for every host at any time, whatever its sockets, routes, tunnels and filters do. A host may send less than it has
counted: filters, queues and unresolved neighbours drop packets.
"""

import socket
from collections import Counter
from collections.abc import Iterable, Iterator

from netns.errors import MissingFeature
from netns.hosts.host import Host
from netns.observe import procnet
from netns.observe.counters import Counters

# PACKET_OTHERHOST and PACKET_OUTGOING: packet(7). ip_rcv() drops what is addressed to another MAC before it counts anything.
_FOR_ANOTHER, _OUTGOING = 3, 4
_VERSIONS = {b"\x08\x00": 4, b"\x86\xdd": 6}
_ETHERNET = 14
_TCP, _ESP = 6, 50
_TUNNELLED = {4: 4, 41: 6}                  # the version of the packet behind a header with this protocol: RFC 2003, RFC 2473
_FLAGS, _RST = 67, 4                        # where TCP's flags are behind an IPv6 header
_TITLES = 3                                 # lines of them in /proc/net/ip_vs
_LOOPBACK = 1                               # the interface's index
# The counters' group, and the name of those that were forwarded.
_GROUPS = {4: ("Ip", "ForwDatagrams"), 6: ("Ip6", "OutForwDatagrams")}


def check(hosts: Iterable[Host]) -> None:
    """Raise AssertionError if a rule does not hold, with all that do not."""
    if wrong := [f"{host.role}: {fault}" for host in hosts for fault in faults(host)]:
        raise AssertionError(f"counted wrong: {'; '.join(wrong)}")


def faults(host: Host) -> list[str]:
    """The rules that do not hold on this host, in words. A packet may come while its counters are read, so they are read twice."""
    return _faults(host) and _faults(host)


def _faults(host: Host) -> list[str]:
    books = Books(host)
    found = list(books.icmp())
    for version in _GROUPS:
        found += [*books.received(version), *books.transmitted(version)]
    return found


class Books:
    """A host's packets by IP version, and its counters."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.ring.drain()
        # All tests pay for this, and some have thousands of packets: these are looked into only where a rule asks for more.
        seen = Counter([(frame.interface, frame.direction, frame.data[12:_ETHERNET]) for frame in host.ring.frames])
        own = {_LOOPBACK, *(interface.index for interface in host.interfaces.values())}
        # Whether its packets tell what its IP layer did: none was lost, none was a program's own (packet(7)), none was forwarded past it
        # (nf_flow_offload_ip_hook()), and all were on its links: tun takes packets apart, and a tunnel's packets over IPv6 are not counted
        # (ip6tunnel_xmit()).
        self.complete = not (host.ring.lost or host.has_opened(socket.AF_PACKET, socket.SOCK_RAW) or host.has_flowtable) \
            and own.issuperset(interface for interface, _direction, _type in seen)
        # What else no kernel counts in OutRequests: packets of an IPv4 socket with IP_HDRINCL (raw_send_hdrinc()), resets of netfilter's
        # over IPv6 (nf_send_reset6()), and what IPVS passes on. tests/routing/test_counted_table.py shows each.
        self.raw = host.has_opened(socket.AF_INET, socket.SOCK_RAW)
        with host.entered():
            self.balances = _has_virtual_services()
            self.counters = Counters.read("snmp", "snmp6")
        self.came: Counter[int] = Counter()
        self.sent: Counter[int] = Counter()
        for (_interface, direction, ethertype), number in seen.items():
            if direction != _FOR_ANOTHER:
                (self.sent if direction == _OUTGOING else self.came)[_VERSIONS.get(ethertype, 0)] += number

    def outgoing(self, version: int) -> Iterator[tuple[int, bytes]]:
        """The protocol that each packet carries in the end, in whatever tunnels of IP in IP, and its frame."""
        for frame in self.host.ring.frames:
            data = frame.data
            if frame.direction != _OUTGOING or _VERSIONS.get(data[12:_ETHERNET]) != version:
                continue
            start, inner = _ETHERNET, version
            while (protocol := data[start + (9 if inner == 4 else 6)] if start + 40 <= len(data) else 0) in _TUNNELLED:
                start += (data[start] & 15) * 4 if inner == 4 else 40
                inner = _TUNNELLED[protocol]
            yield protocol, data

    def icmp(self) -> Iterator[str]:
        """icmpStatsInMsgs and icmpMsgStatsInPkts: the messages, and the same by type."""
        count = self.counters
        for version, group in ((4, "Icmp"), (6, "Icmp6")):
            for way in ("In", "Out"):
                typed = count.icmp_by_type(version, way)
                total = count[f"{group}.{way}Msgs"]
                # A message with a wrong checksum, or without room for a type, has none.
                least = total - count[f"{group}.InErrors"] if way == "In" else total
                if not least <= typed <= total:
                    yield f"{group}.{way}Msgs is {total}, but {typed} by type"

    def received(self, version: int) -> Iterator[str]:
        """ipSystemStatsInReceives: all datagrams that came, those in error included."""
        group = _GROUPS[version][0]
        count, came = self.counters[f"{group}.InReceives"], self.came[version]
        if not self.complete or came == count:
            return
        # The kernel's own copy of what it sends to many comes from no interface.
        copies = self.counters["Ip6.OutMcastPkts"] if version == 6 else self.copies_of_ipv4()
        if not came <= count <= came + copies:
            yield f"{group}.InReceives is {count}, but {came} packets came, and {copies} were sent to many"

    def copies_of_ipv4(self) -> int:
        """Packets sent to many. Only this rule needs the file, and few tests this rule."""
        with self.host.entered():
            counters = Counters.read("netstat")
        return counters["IpExt.OutMcastPkts"] + counters["IpExt.OutBcastPkts"]

    def transmitted(self, version: int) -> Iterator[str]:
        """ipSystemStatsOutTransmits: supplied to the lower layers; OutRequests: supplied to IP by the host's own protocols. Nothing where
        the kernel counts both as one (before 6.7)."""
        group, forwarded = _GROUPS[version]
        if not self.complete:
            return
        try:
            transmits, requests, through, creates, fragmented = (
                self.counters[f"{group}.{name}"] for name in ("OutTransmits", "OutRequests", forwarded, "FragCreates", "FragOKs"))
        except MissingFeature:
            return
        sent = self.sent[version]
        # Segmentation makes several packets of one that was counted.
        if transmits < sent and transmits < sent - sum(protocol == _TCP for protocol, _data in self.outgoing(version)):
            yield f"{group}.OutTransmits is {transmits}, but {sent} packets were sent"
        if self.balances or version == 4 and self.raw:
            return
        asked = requests + through + creates - fragmented
        if transmits > asked and transmits > asked + sum(map(self.unasked, self.outgoing(version))):
            yield (f"{group}.OutTransmits is {transmits}, but {requests} were requested, {through} forwarded, and {creates - fragmented} "
                   "more came of fragmentation")

    @staticmethod
    def unasked(packet: tuple[int, bytes]) -> bool:
        """Whether it may be counted without a request: a reset of netfilter's over IPv6, and ESP, which is segmented before the IP layer
        counts it (xfrm_output_gso())."""
        protocol, data = packet
        if protocol != _TCP or _VERSIONS[data[12:_ETHERNET]] == 4:
            return protocol == _ESP
        return len(data) > _FLAGS and bool(data[_FLAGS] & _RST)


def _has_virtual_services() -> bool:
    """Whether IPVS balances in the calling thread's namespace: /proc/net/ip_vs has three lines of titles."""
    try:
        return procnet.read("ip_vs").count(b"\n") > _TITLES
    except FileNotFoundError:
        return False
