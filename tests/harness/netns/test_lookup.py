"""netns.netlink.lookup: what `ip route get` says, which is asked too."""

import socket

import pytest

from fixtures.topologies import ROUTED
from netns.attempt import refused
from netns.netlink.lookup import Way, lookup
from netns.packets import icmp, pmtu

pytestmark = pytest.mark.topology(ROUTED)


def test_lookup_finds_gateway_mtu_lock_and_expiry_as_ip_does(net, family):
    client, router, server = net.nodes("client", "router", "server")
    there, interface = server.address(family), client.interfaces["router"].index
    gateway = router.address(family, "client")
    assert lookup(client, there) == Way(None, None, False, interface, gateway)

    udp = client.socket(family, socket.SOCK_DGRAM)
    udp.bind((client.address(family), 0))
    icmp.send_too_big(router, client, 1300, icmp.udp_quote(*udp.getsockname()[:2], there, 9))
    way = lookup(client, there, source=client.address(family), interface=interface)
    assert (way.mtu, way.locked, way.gateway) == (1300, False, gateway) and 590 < way.expires <= 600
    assert pmtu.path(client, there).mtu == 1300

    client.run(["ip", "route", "replace", there, "dev", "to-router", "mtu", "lock", "1400"])
    assert lookup(client, there) == Way(1400, None, True, interface, None)


def test_lookup_goes_by_the_mark(net, family):
    client, server = net.nodes("client", "server")
    client.run(["ip", "-4" if family == socket.AF_INET else "-6", "rule", "add", "fwmark", "7", "unreachable"])
    assert lookup(client, server.address(family), mark=6).mtu is None
    with refused("ENETUNREACH", "a lookup with a mark that a rule refuses"):
        lookup(client, server.address(family), mark=7)


def test_lookup_without_a_route_fails(net, family):
    client, server = net.nodes("client", "server")
    client.run(["ip", "-4" if family == socket.AF_INET else "-6", "route", "del", "default"])
    with refused("ENETUNREACH", "a lookup without a route"):
        lookup(client, server.address(family))
