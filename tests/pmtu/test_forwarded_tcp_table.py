"""TCP through a router behind which it is narrow: how much is sent at once, with and without segmentation offload. Source: RFC 1812,
4.3.3.3; RFC 8200, 5; RFC 1191, 3; RFC 8201, 4."""

import socket

import pytest

from fixtures.table import Table
from fixtures.topologies import ROUTED
from netns import ExpectationFailed, deliver, tcp_info, tcp_pair
from netns.hosts import offload
from netns.hosts.pinned import NO_ICMP_LIMITS

pytestmark = pytest.mark.topology(ROUTED)

FAMILIES = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}
LINK, NARROW = 1500, 1300
HEADERS = {"IPv4": 20 + 20 + 12, "IPv6": 40 + 20 + 12}      # with TCP's timestamps
NARROWS = ("link", "route")
OFFLOADS = {"client's": (False, True), "router's": (True, False), "both": (False, False), "none": (True, True)}
AMOUNTS = {"1 byte": lambda mss: 1, **{f"{count} MSS {offset:+}": lambda mss, count=count, offset=offset: count * mss + offset
                                       for count in (1, 2, 10, 40) for offset in (-1, 0, 1)}}


def expected(name, amount):
    """The first packet that is larger is reported; all data arrives."""
    fits = AMOUNTS[amount](NARROW - HEADERS[name]) + HEADERS[name] <= NARROW
    return f"arrived, PMTU {LINK if fits else NARROW}"


SOURCE = "RFC 1191, 3; RFC 8201, 4; RFC 8200, 5"
TABLE = Table("pmtu.forwarded_tcp", "family, segmentation offload, what is narrow", "data at once", SOURCE, {
    f"{name}, {whose}, {narrow}": {amount: expected(name, amount) for amount in AMOUNTS}
    for name in FAMILIES for whose in OFFLOADS for narrow in NARROWS})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_sender_learns_of_the_narrow_link_behind_the_router(net, row, table):
    """Also where what it sends at once is one packet for the router: the segments count."""
    name, whose, where = row.split(", ")
    family = FAMILIES[name]
    client, server, router = net.nodes("client", "server", "router")
    router.pin(NO_ICMP_LIMITS)
    for host, software in zip((client, router), OFFLOADS[whose]):
        offload.segment_in_software(host, on=software)
    if where == "link":
        router.run(["ip", "link", "set", "dev", "to-server", "mtu", str(NARROW)])
    else:
        router.run(["ip", "route", "add", server.address(family), "dev", "to-server", "mtu", str(NARROW)])
    for column in table:
        client.run(["ip", "-4" if name == "IPv4" else "-6", "route", "flush", "cache"])
        conn, peer = tcp_pair(client, server, family)
        try:
            deliver(conn, peer, AMOUNTS[column](NARROW - HEADERS[name]))
            table.saw(f"arrived, PMTU {tcp_info(conn).pmtu}")
        except ExpectationFailed:
            table.saw("lost")
        conn.close()
        peer.close()
