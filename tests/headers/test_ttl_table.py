"""TTL and hop limit on every way through a router: what is delivered, and what is reported. Source: RFC 1812, 5.3.1; RFC 8200, 3;
RFC 1122, 3.2.1.7: a host does not discard what is for itself."""

import socket
import struct

import pytest

from fixtures.table import Table
from fixtures.topologies import ROUTED
from netns.packets.icmp import checksum

pytestmark = pytest.mark.topology(ROUTED)

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = {"IPv4": V4, "IPv6": V6}
WAYS = ("local", "forwarded", "conntrack", "DNAT", "SNAT", "reject", "IPVS NAT", "IPVS direct routing", "IPVS tunnel", "gre", "ESP tunnel")
TIMES = (0, 1, 2, 3, 64, 255)
AT = {V4: 8, V6: 7}                         # of the header
EXCEEDED = {V4: "11/0", V6: "3/0"}
# Where the router's own header is around the packet, or nothing is delivered, its TTL is not looked at.
SHOWN = ("local", "forwarded", "conntrack", "DNAT", "SNAT", "IPVS NAT", "IPVS direct routing")


def expected(family, name, ttl):
    if name in ("local", "reject"):
        return "delivered" + (f", TTL {ttl}" if name == "local" else "")
    if ttl <= 1:
        return EXCEEDED[family]
    return "delivered" + (f", TTL {ttl - 1}" if name in SHOWN else "")


TABLE = Table("headers.ttl", "way", "TTL or hop limit", "RFC 1812, 5.3.1; RFC 8200, 3; RFC 1122, 3.2.1.7", {
    f"{version}, {name}": {str(ttl): expected(family, name, ttl) for ttl in TIMES}
    for version, family in FAMILIES.items() for name in WAYS})


def packet(way, ttl, datagram):
    """The datagram with its header."""
    here, there = (socket.inet_pton(way.family, each) for each in (way.source, way.destination))
    if way.family == V6:
        return struct.pack("!IHBB", 6 << 28, len(datagram), socket.IPPROTO_UDP, ttl) + here + there + datagram
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), way.count, 0, ttl, socket.IPPROTO_UDP, 0) + here + there
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + datagram


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_router_reports_what_has_no_hop_left(way, row, table):
    """It forwards nothing whose TTL would be zero, and takes one of all else."""
    for column in table:
        datagram = way.datagram()
        with way.end.capture("udp") as seen:
            text = way.outcome(packet(way, int(column), datagram), payload=[datagram[8:]])
        arrived = [each.frame.data[14:] for each in seen.received() if each.frame.data.endswith(datagram[8:])]
        shown = row.partition(", ")[2] in SHOWN and arrived and text == "delivered"
        table.saw(text + (f", TTL {arrived[0][AT[way.family]]}" if shown else ""))
