"""ICMP errors from routers behind a security gateway, whose addresses match no policy: RFC 4301, 6."""

import socket

import pytest

from netns import Link, Route, Topology
from netns.netlink import xfrm
from netns.packets import probe

# ESP protects packets between client and server on the way between the gateways; `inner` is a router without policies.
GATEWAYS = Topology(
    links=(
        Link("client", "left", ipv4="192.0.2.0/24", ipv6="2001:db8:1::/64"),
        Link("left", "right", ipv4="198.51.100.0/28", ipv6="2001:db8:2::/64"),
        Link("right", "inner", ipv4="198.51.100.16/28", ipv6="2001:db8:3::/64"),
        Link("inner", "server", ipv4="203.0.113.0/24", ipv6="2001:db8:4::/64"),
    ),
    routes=(
        Route("client", via="left"), Route("left", via="right"), Route("right", via="left"),
        Route("right", via="inner", to="203.0.113.0/24"), Route("right", via="inner", to="2001:db8:4::/64"),
        Route("inner", via="right"), Route("server", via="inner"),
    ),
    routers=("left", "right", "inner"),
)
pytestmark = pytest.mark.topology(GATEWAYS)

TIME_EXCEEDED = {socket.AF_INET: (11, 0), socket.AF_INET6: (3, 0)}
TTL_OF_INNER = 3


def protect(net, family):
    """Traffic between client and server is ESP between the gateways, ICMP errors about it included."""
    client, server, left, right = net.nodes("client", "server", "left", "right")
    ends = left.address(family, "right"), right.address(family, "left")
    ways = ((left, right, client, server, ends, 1), (right, left, server, client, ends[::-1], 2))
    for near, far, sender, receiver, (source, destination), spi in ways:
        selector = xfrm.Selector(sender.address(family), receiver.address(family))
        template = xfrm.Template(source, destination, mode="tunnel")
        sa = xfrm.SA(source, destination, 0x1000 + spi, mode="tunnel", icmp=True)
        xfrm.add(near, sa, xfrm.Policy(selector, template, "out", icmp=True))
        xfrm.add(far, sa, *(xfrm.Policy(selector, template, direction, icmp=True) for direction in ("in", "fwd")))


@pytest.mark.parametrize("kind", probe.KINDS)
def test_icmp_error_takes_the_esp_tunnel_of_the_packet_that_it_quotes(net, family, kind):
    """The client receives it, with no ICMP in the clear between the gateways. Kernels without "xfrm: introduce
    forwarding of ICMP Error messages" look up a policy for the router's own address, and find none."""
    client, server, right, inner = net.nodes("client", "server", "right", "inner")
    protect(net, family)

    with client.capture() as at_client, right.capture() as at_right:
        probe.probe(client, kind, client.address(family), server.address(family), TTL_OF_INNER)
        at_client.until("a response to the probe", probe.answers, within=5)

    answer = probe.answers(at_client).only()
    assert (answer.source, answer.kind) == (inner.address(family, "right"), TIME_EXCEEDED[family])
    to_left = [packet for packet in at_right.sent() if packet.interface == "to-left"]
    assert [packet for packet in to_left if packet.icmp and packet.destination == client.address(family)] == []
    assert [packet.protocol for packet in to_left].count("esp") == 1
