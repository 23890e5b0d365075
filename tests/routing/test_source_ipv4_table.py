"""Which of two addresses of an IPv4 host is the source of a packet, for each kind of route: the route's own, else one of its interface,
first in the subnet of the next hop, else of another interface, loopback first. Source: ip-route(8), src; the IP command reference of
iproute2, appendix "Source address selection"; RFC 1122 (3.3.4.3).
"""

import ipaddress
import itertools
import socket
from dataclasses import dataclass

import pytest

from fixtures.table import LeftOut, Measured, Must, Table
from fixtures.topologies import PAIR
from netns.attempt import errno_of
from netns.netlink import routes, rtnl

V4 = socket.AF_INET
pytestmark = pytest.mark.topology(PAIR)

GLOBAL, LINK, HOST = 0, 253, 254
TO = "203.0.113.9"


@dataclass(frozen=True)
class Assigned:
    """With its prefix length; `device` is the host at the other end, "" loopback."""

    text: str
    device: str = "left"
    scope: int = GLOBAL

    @property
    def interface(self):
        return ipaddress.ip_interface(self.text)


ADDRESSES = {
    "first subnet": Assigned("198.18.20.1/24"), "same subnet": Assigned("198.18.20.2/24"), "second subnet": Assigned("198.18.21.1/24"),
    "of scope link": Assigned("198.18.22.1/24", scope=LINK), "of scope host": Assigned("198.18.23.1/24", scope=HOST),
    "on loopback": Assigned("198.18.24.1/32", device=""), "on the other link": Assigned("198.18.25.1/24", device="right"),
    "without a subnet": Assigned("198.18.26.1/32"),
}
# By name: the next hop, the scope, and the source of a route to TO by the link to left.
ROUTES = {
    "direct, of scope link": (None, LINK, None), "direct, of scope global": (None, GLOBAL, None),
    "via the first subnet": ("198.18.20.9", GLOBAL, None), "via the second subnet": ("198.18.21.9", GLOBAL, None),
    "via the link's subnet": ("198.18.22.9", GLOBAL, None),
    "with src first subnet": (None, LINK, "first subnet"), "with src on loopback": (None, LINK, "on loopback"),
    "with src of scope host": (None, LINK, "of scope host"),
}


def select(names, route):
    """The address that the reference says is chosen, "" where it chooses none of these two."""
    hop, scope, own = ROUTES[route]
    if own in names:
        return own
    hop = ipaddress.ip_address(hop or TO)
    primary = [name for name in names if not ("first subnet" in names and "same subnet" in names and name == names[1])]
    suitable = [name for name in primary if ADDRESSES[name].scope <= scope]
    near = [name for name in suitable if ADDRESSES[name].device == "left"]
    same = [name for name in near if hop in ADDRESSES[name].interface.network]
    if same or near:
        # No document says which of different scopes an interface has first.
        return (same or near)[0] if same or len({ADDRESSES[name].scope for name in near}) == 1 else ""
    if scope >= LINK:
        return ""
    return next((name for device in ("", "right") for name in suitable if ADDRESSES[name].device == device), "")


def cell(names, route):
    own = ROUTES[route][2]
    if own and own not in names:
        return LeftOut("the source is none of the host's addresses")
    if own == "of scope host":
        return Must(own, "ip-route(8): src is the address to prefer")
    return select(names, route) or \
        Measured("no document says which of different scopes is first, or that a scope of link has other interfaces")


SOURCES = Table("routing.sources-ipv4", "route", "addresses", "ip-route(8); IP command reference, \"Source address selection\"",
                {route: {f"{first}, then {second}": cell((first, second), route) for first, second in itertools.permutations(ADDRESSES, 2)}
                 for route in ROUTES})


def index(client, device):
    return client.interfaces[device].index if device else rtnl.LOOPBACK


def source(client):
    """The address that connect() of a UDP socket takes, or its errno."""
    with client.socket(V4, socket.SOCK_DGRAM) as sock:
        refused = errno_of(sock.connect, (TO, 4000))
        found = sock.getsockname()[0]
    return refused or next((name for name, own in ADDRESSES.items() if str(own.interface.ip) == found), found)


@pytest.mark.table(SOURCES)
@pytest.mark.parametrize("row", SOURCES.rows)
def test_source_address_is_the_routes_or_one_of_its_interface(net, row, table):
    """The host has these two addresses and 127.0.0.1."""
    client = net["client"]
    hop, scope, own = ROUTES[row]
    left, right = (client.interfaces[name].index for name in ("left", "right"))
    routes.carry_out(client.namespace, [routes.address(left, "192.0.2.1/24", delete=True),
                                        routes.address(right, "198.51.100.1/24", delete=True)])
    words = {"dev": left, "scope": scope, **({"via": hop, "onlink": True} if hop else {}),
             **({"src": str(ADDRESSES[own].interface.ip)} if own else {})}
    for column in table:
        names = column.split(", then ")
        routes.carry_out(client.namespace, [
            *(routes.address(index(client, ADDRESSES[name].device), ADDRESSES[name].text, scope=ADDRESSES[name].scope) for name in names),
            routes.route("add", f"{TO}/32", **words)])
        table.saw(source(client))
        routes.carry_out(client.namespace, [
            routes.route("delete", f"{TO}/32", dev=left) if not own else routes.route("delete", f"{TO}/32"),
            *(routes.address(index(client, ADDRESSES[name].device), ADDRESSES[name].text, delete=True) for name in reversed(names))])
