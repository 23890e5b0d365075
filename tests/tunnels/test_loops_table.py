"""Tunnels whose packets are routed into another tunnel, and from there back: each pair of kinds, and longer ways. Source:
include/net/ip_tunnels.h, IP_TUNNEL_RECURSION_LIMIT; RFC 2473, 4.1: a loop must end."""

import itertools
import socket

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import LAN
from netns.attempt import errno_of
from netns.hosts import tunnel

pytestmark = pytest.mark.topology(LAN)

V4, V6 = socket.AF_INET, socket.AF_INET6
LIMIT = 5
KINDS = {
    V4: {"ipip": ["nopmtudisc"], "sit": ["nopmtudisc"], "gre": ["nopmtudisc"]},
    V6: {"ip6tnl": ["mode", "any", "encaplimit", "none"], "ip6gre": ["encaplimit", "none"]},
}
ENDS = {V4: "198.51.100.{}", V6: "2001:db8:a::{}"}
BEHIND = {V4: "203.0.113.99", V6: "2001:db8:c::1"}
FAMILIES = {"IPv4": V4, "IPv6": V6}
COUNTS = OneOf(tuple(f"dropped after {count} headers" for count in range(1, LIMIT + 1)),
               "a loop may be noticed earlier: the limit is not a promise to go so far")
WAYS = {family: [*itertools.product(KINDS[family], repeat=1), *itertools.product(KINDS[family], repeat=2),
                 *((kind,) * 3 for kind in KINDS[family])] for family in KINDS}
TABLE = Table("tunnels.loops", "family", "tunnels, each routed into the next, the last into the first", "ip_tunnels.h; RFC 2473, 4.1", {
    name: {" ".join(way): COUNTS for way in WAYS[family]} for name, family in FAMILIES.items()})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_packet_in_a_loop_of_tunnels_is_dropped_after_a_few_headers(net, row, table):
    """Each tunnel adds one, and takes stack of the kernel."""
    client, family = net["client"], FAMILIES[row]
    local = client.address(family)
    for number, column in enumerate(table, 1):
        kinds = column.split()
        ends = [ENDS[family].format(10 * number + place) for place in range(len(kinds))]
        names = [f"loop{place}" for place in range(len(kinds))]
        for name, kind, remote in zip(names, kinds, ends):
            tunnel.add(client, name, kind, "local", local, "remote", remote, *KINDS[family][kind])
        # The other end of each is behind the next one.
        lines = [f"route add {end} dev {name}" for end, name in zip(ends, [*names[1:], names[0]])]
        client.run(["ip", "-batch", "-"], stdin="\n".join([*lines, f"route add {BEHIND[family]} dev {names[0]}"]) + "\n")
        with client.capture() as packets, client.socket(family, socket.SOCK_DGRAM) as sock:
            errno_of(sock.sendto, b"x", (BEHIND[family], 4000))
        # The first packet that enters a tunnel has no header of a tunnel yet.
        headers = len([packet for packet in packets.sent() if packet.interface in names])
        table.saw(f"dropped after {headers} headers")
        client.run(["ip", "-batch", "-"], stdin="".join(f"link del {name}\n" for name in names))
