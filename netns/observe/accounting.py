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
_PROTOCOL = {4: 23, 6: 20}                  # where the protocol's number is in a frame
_TCP = b"\x06"
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
    """The rules that do not hold on this host, in words."""
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
        own = {_LOOPBACK, *(interface.index for interface in host.interfaces.values())}
        # Whether its packets tell what its IP layer did: none was lost, none was a program's own (packet(7)), and all were on its links:
        # tun takes packets apart, and a tunnel's packets over IPv6 are not counted (ip6tunnel_xmit()).
        self.complete = not (host.ring.lost or host.has_opened(socket.AF_PACKET, socket.SOCK_RAW)) \
            and own.issuperset(frame.interface for frame in host.ring.frames)
        # What else no kernel counts in OutRequests: packets of an IPv4 socket with IP_HDRINCL (raw_send_hdrinc()), resets of netfilter's
        # over IPv6 (nf_send_reset6()), and what IPVS passes on. tests/routing/test_counted_table.py shows each.
        self.raw = host.has_opened(socket.AF_INET, socket.SOCK_RAW)
        self.resets = 0
        with host.entered():
            self.balances = _has_virtual_services()
            self.counters = Counters.read("snmp", "snmp6").nonzero()
        self.came: Counter[int] = Counter()
        self.sent: Counter[int] = Counter()
        self.tcp: Counter[int] = Counter()      # segments sent: the IP layer counts one packet where segmentation makes several of it
        for frame in host.ring.frames:
            data = frame.data
            version = _VERSIONS.get(data[12:14], 0)
            if not version or frame.direction == _FOR_ANOTHER:
                continue
            if frame.direction != _OUTGOING:
                self.came[version] += 1
                continue
            self.sent[version] += 1
            if data[_PROTOCOL[version]:_PROTOCOL[version] + 1] == _TCP:
                self.tcp[version] += 1
                self.resets += version == 6 and len(data) > _FLAGS and bool(data[_FLAGS] & _RST)

    def icmp(self) -> Iterator[str]:
        """icmpStatsInMsgs and icmpMsgStatsInPkts: the messages, and the same by type."""
        count = self.counters
        for group, by_type in (("Icmp", "IcmpMsg"), ("Icmp6", "Icmp6")):
            for way in ("In", "Out"):
                typed = sum(value for name, value in count.items() if name.startswith(f"{by_type}.{way}Type"))
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
        many = ("Ip6.OutMcastPkts",) if version == 6 else ("IpExt.OutMcastPkts", "IpExt.OutBcastPkts")
        counters = self.host.counters()
        copies = sum(counters[name] for name in many)
        if not came <= count <= came + copies:
            yield f"{group}.InReceives is {count}, but {came} packets came, and {copies} were sent to many"

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
        if transmits < self.sent[version] - self.tcp[version]:
            yield f"{group}.OutTransmits is {transmits}, but {self.sent[version]} packets were sent"
        if self.balances or version == 4 and self.raw:
            return
        asked = requests + through + creates - fragmented
        if transmits > asked + (self.resets if version == 6 else 0):
            yield (f"{group}.OutTransmits is {transmits}, but {requests} were requested, {through} forwarded, and {creates - fragmented} "
                   "more came of fragmentation")


def _has_virtual_services() -> bool:
    """Whether IPVS balances in the calling thread's namespace: /proc/net/ip_vs has three lines of titles."""
    try:
        return procnet.read("ip_vs").count(b"\n") > _TITLES
    except FileNotFoundError:
        return False
