"""Routes that go with their interface, and what a routing daemon is told. Source: rtnetlink(7); ip-sysctl.rst, skip_notify_on_dev_down."""

import json
import socket

import pytest

from fixtures.topologies import LAN
from netns.netlink.message import HEADER

pytestmark = pytest.mark.topology(LAN)

V4 = socket.AF_INET
NEWLINK, DELLINK, DELADDR, DELROUTE = 16, 17, 21, 25
_GROUPS = 1 << 0 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10      # RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
TO = {V4: "198.18.5.0/24", socket.AF_INET6: "2001:db8:55::/64"}


class Daemon:
    """A routing daemon on the client with a route through the server; it hears of links, addresses and routes."""

    def __init__(self, client, server, family):
        self.host, self.family = client, family
        self.version = "-4" if family == V4 else "-6"
        client.run(["ip", "route", "add", TO[family], "via", server.address(family), "proto", "zebra"])
        self.socket = client.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.socket.bind((0, _GROUPS))
        self.socket.setblocking(False)

    def heard(self):
        """The kinds of the messages since the last call; of routes those about TO only."""
        found = set()
        mine = socket.inet_pton(self.family, TO[self.family].partition("/")[0])
        while True:
            try:
                datagram = self.socket.recv(1 << 16)
            except BlockingIOError:
                return found
            while datagram:
                length, kind, *_rest = HEADER.unpack_from(datagram)
                body, datagram = datagram[HEADER.size:length], datagram[(length + 3) & ~3:]
                if kind not in (24, DELROUTE) or mine in body:
                    found.add(kind)

    def routes(self):
        return json.loads(self.host.run(["ip", "-j", self.version, "route", "show", TO[self.family]]))


@pytest.fixture
def daemon(net, family):
    return Daemon(*net.nodes("client", "server"), family)


@pytest.mark.parametrize("skip", [0, 1])
def test_daemon_is_told_of_each_ipv6_route_that_goes_with_its_link_and_of_no_ipv4_route(daemon, skip):
    """IPv4 sends no RTM_DELROUTE for a link that goes down, and IPv6 does unless skip_notify_on_dev_down=1 (ip-sysctl.rst): a daemon must
    drop the routes itself when it hears of the link (FRR #3152, #13561)."""
    daemon.host.pin({"net.ipv6.route.skip_notify_on_dev_down": skip})
    assert len(daemon.routes()) == 1
    daemon.heard()
    daemon.host.run(["ip", "link", "set", "to-server", "down"])

    heard = daemon.heard()
    assert (daemon.routes(), NEWLINK in heard) == ([], True)
    assert (DELROUTE in heard) == (daemon.family != V4 and not skip)


def test_deleted_interface_takes_its_routes_and_says_so_once(daemon):
    """RTM_DELLINK; the routes are gone, as after "down"."""
    daemon.heard()
    daemon.host.run(["ip", "link", "delete", "to-server"])

    heard = daemon.heard()
    assert (daemon.routes(), DELLINK in heard, DELROUTE in heard) == ([], True, daemon.family != V4)


def test_lost_carrier_keeps_the_route_and_marks_it(net, family, daemon):
    """RTNH_F_LINKDOWN (rtnetlink(7), ip-route(8)): the route stays, so no RTM_DELROUTE; it is left out of lookups only with
    ignore_routes_with_linkdown=1, ip-sysctl.rst."""
    client, server = net.nodes("client", "server")
    daemon.heard()
    with server.link_down("client"):
        [route] = daemon.routes()
        assert "linkdown" in route["flags"]
        assert DELROUTE not in daemon.heard()
        destination = TO[family].partition("/")[0]
        assert not client.failure(["ip", "route", "get", destination])
        client.pin({f"net.{'ipv4' if family == V4 else 'ipv6'}.conf.to-server.ignore_routes_with_linkdown": 1})
        assert "unreachable" in client.failure(["ip", "route", "get", destination]).lower()
    assert len(daemon.routes()) == 1


def test_address_that_is_deleted_takes_the_ipv4_routes_that_send_from_it(net, family, daemon):
    """A route with a preferred source (ip-route(8), src): IPv4 deletes it with the address, IPv6 keeps the route and forgets the source."""
    client, server = net.nodes("client", "server")
    address, prefix, to = ("192.0.2.77", 32, "198.18.6.0/24") if family == V4 else ("2001:db8:1::77", 128, "2001:db8:66::/64")
    client.add_address(f"{address}/{prefix}", "server")
    client.run(["ip", "route", "add", to, "via", server.address(family), "src", address])
    daemon.heard()
    client.run(["ip", "address", "delete", f"{address}/{prefix}", "dev", "to-server"])

    left = json.loads(client.run(["ip", "-j", daemon.version, "route", "show", to]))
    assert DELADDR in daemon.heard()
    assert [route.get("prefsrc", "none") for route in left] == ([] if family == V4 else ["none"])
    assert len(daemon.routes()) == 1
