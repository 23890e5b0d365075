"""Nexthop objects of IPv4 routes: ip-nexthop(8)."""

import socket

import pytest

from fixtures.topologies import ROUTED
from netns import CommandError, deliver, missing_feature, tcp_pair

pytestmark = pytest.mark.topology(ROUTED)

V4, V6 = socket.AF_INET, socket.AF_INET6
ALL_MLDV2_ROUTERS = "ff02::16"  # RFC 3810, 5.2.14


def sent(packets):
    """What a host has sent, except for MLD reports."""
    return [packet for packet in packets.sent() if not (packet.ip and packet.ip.dst == ALL_MLDV2_ROUTERS)]


@pytest.mark.parametrize("nexthop, device", [
    ("-4 dev lo", "lo"),
    ("-6 dev lo", "lo"),
    ("-6 dev to-router", "to-router"),
    ("-6 via fe80::1 dev to-router", "to-router"),
])
@pytest.mark.virtual_clock("may crash an affected kernel: needs its own machine")
def test_ipv4_route_uses_a_nexthop_object_of_either_family(net, nexthop, device):
    """Packets leave by the nexthop's device on the same host. Kernels without "net: ipv6: fix panic when IPv4 route
    references loopback IPv6 nexthop" keep state of such a nexthop in memory shared by all namespaces: a packet leaves
    by another host's device, or the kernel crashes."""
    client, server = net.nodes("client", "server")
    for host in (client, server):
        family, *where = nexthop.split()
        try:
            host.run(["ip", family, "nexthop", "add", "id", "100", *where])
        except CommandError as error:
            raise missing_feature("the kernel or ip(8) has no nexthop objects", error) from error
        host.run(["ip", "route", "add", "203.0.113.0/24", "nhid", "100"])

    for host, other in ((client, server), (server, client)):
        with host.capture() as here, other.capture() as there, host.socket(V4, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("203.0.113.1", 4000))
            here.until("a packet sent other than MLD reports", sent, within=5)
        assert {packet.interface for packet in sent(here)} == {device}
        assert sent(there) == []
    for family in (V4, V6):
        deliver(*tcp_pair(client, server, family), 1000)
