"""ICMP errors of a router behind a security gateway about packets that came by ESP: RFC 4301, 6; ip-xfrm(8), flag icmp."""

import socket
from contextlib import suppress

import pytest

from fixtures.gateways import GATEWAYS, protect
from fixtures.table import Measured, Table
from netns import ExpectationFailed
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.packets import probe

pytestmark = pytest.mark.topology(GATEWAYS)

V4 = socket.AF_INET
TTL_OF_INNER, ENOUGH = 3, 30
# What makes inner send an error: the hops that a packet may take, and the type of inner's route to the server.
ERRORS = {"time exceeded": (TTL_OF_INNER, ""), "unreachable": (ENOUGH, "unreachable"), "prohibited": (ENOUGH, "prohibit"),
          "no route": (ENOUGH, "throw")}
FLAGS = {"policies and SAs": (True, True), "policies": (True, False), "SAs": (False, True), "nothing": (False, False)}


def expected(flagged):
    """Type and code are those of the table of verdicts: here is told by which way it comes."""
    if flagged == "policies and SAs":
        return "by ESP"
    return Measured("ip-xfrm(8) does not say what becomes of an error if not all have the flag")


TABLE = Table("xfrm.icmp_errors", "quoted packet, and what has the flag icmp", "error", "RFC 4301, 6.2; ip-xfrm(8)", {
    f"{kind}, {flagged}": {error: expected(flagged) for error in ERRORS} for kind in probe.KINDS for flagged in FLAGS})


def errors_of(packets):
    """Time exceeded and destination unreachable of both versions."""
    return [packet for packet in packets if packet.icmp and packet.icmp[0] in (1, 3, 11)]


def way_of(at_client, at_right):
    """How the error of inner came to the client."""
    to_left = [each for each in at_right.sent() if each.interface == "to-left"]
    way = "in the clear" if errors_of(to_left) else "by ESP" if any(each.protocol == "esp" for each in to_left) else "not at all"
    return way if errors_of(at_client.received()) or way == "not at all" else f"{way}, but not to the client"


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_icmp_error_takes_the_tunnel_of_the_packet_that_it_quotes(net, family, row, table):
    """Its sender's address matches no policy, but the packet that it quotes does."""
    client, server, left, right, inner = net.nodes("client", "server", "left", "right", "inner")
    kind, flagged = row.split(", ")
    for host in (left, right, inner):
        host.pin(NO_ICMP_LIMITS)
    protect(net, family, *FLAGS[flagged])
    here, there = client.address(family), server.address(family)
    for column in table:
        ttl, route = ERRORS[column]
        if route:
            inner.run(["ip", "route", "add", route, there])
        with client.capture() as at_client, right.capture() as at_right:
            probe.probe(client, kind, here, there, ttl)
            with suppress(ExpectationFailed):
                at_client.until("an ICMP error", lambda seen: errors_of(seen.received()), within=1)
        if route:
            inner.run(["ip", "route", "del", route, there])
        table.saw(way_of(at_client, at_right))
