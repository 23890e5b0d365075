"""Which of two addresses of an IPv6 host is the source of a packet: RFC 6724, section 5, for each pair of kinds of addresses, in both
orders of their making, and each kind of destination."""

import ipaddress
import itertools
import socket
from dataclasses import dataclass

import pytest

from fixtures.table import Measured, Table
from fixtures.topologies import PAIR
from netns.netlink import routes

V6 = socket.AF_INET6
pytestmark = pytest.mark.topology(PAIR)

IPV6_MULTICAST_IF = 17


@dataclass(frozen=True)
class Address:
    """An address of the client. Packets leave by the link to left, so that the one to right is another interface."""

    text: str
    device: str = "left"
    deprecated: bool = False
    tentative: bool = False


ADDRESSES = {
    "near": Address("2001:db8:5:5::1"), "far": Address("2001:db8:f000::1"),
    "deprecated": Address("2001:db8:5:6::1", deprecated=True), "other interface": Address("2001:db8:5:4::1", device="right"),
    "tentative": Address("2001:db8:5:5::2", tentative=True),
    "ULA": Address("fd00:5::1"), "6to4": Address("2002:c000:201::1"), "Teredo": Address("2001:0:5::1"),
    "link-local": Address("fe80::5"), "deprecated ULA": Address("fd00:6::1", deprecated=True),
}
DESTINATIONS = {
    "near": "2001:db8:5:5::99", "global": "2001:db8:f002::1", "ULA": "fd00:7::1", "6to4": "2002:c633:6401::1", "Teredo": "2001:0:9::1",
    "link-local": "fe80::99", "multicast of the link": "ff02::99", "multicast of the site": "ff05::99", "global multicast": "ff0e::99",
}
LABELS = {ipaddress.ip_network(prefix): label for prefix, label in {
    "::1/128": 0, "::/0": 1, "2002::/16": 2, "::/96": 3, "::ffff:0:0/96": 4, "2001::/32": 5, "fc00::/7": 13}.items()}


def scope(address):
    """RFC 6724, 3.1: a unique local address is of global scope."""
    number = ipaddress.ip_address(address)
    return number.packed[1] & 15 if number.is_multicast else 2 if number.is_link_local else 14


def label(address):
    """By the default policy table: RFC 6724, 2.1."""
    number = ipaddress.ip_address(address)
    return LABELS[max((network for network in LABELS if number in network), key=lambda network: network.prefixlen)]


def common(first, second):
    """The common prefix of two addresses in bits, of at most the source's 64."""
    differing = int(ipaddress.ip_address(first)) ^ int(ipaddress.ip_address(second))
    return min(64, 128 - differing.bit_length())


def preference(address, to):
    """A key by which the better source is larger: rules 2, 3, 5, 6 and 8. Rule 2: the smallest scope that suffices,
    else the largest."""
    own, wanted = scope(address.text), scope(to)
    return ((1, -own) if own >= wanted else (0, own), not address.deprecated, address.device == "left",
            label(address.text) == label(to), common(address.text, to))


def better(names, to):
    """The one of two addresses that RFC 6724 prefers, or the interface's own link-local one, or "" if it leaves it open. A tentative one
    is not assigned yet (RFC 4862, 5.4)."""
    candidates = {name: ADDRESSES[name] for name in names if not ADDRESSES[name].tentative}
    candidates["its own"] = Address("fe80::200:5eff:fe00:5301")
    if scope(to) == 2 or ipaddress.ip_address(to).is_multicast:
        candidates = {name: address for name, address in candidates.items() if address.device == "left"}
    ranks = sorted(((preference(address, to), name) for name, address in candidates.items()), reverse=True)
    return "" if len(ranks) > 1 and ranks[0][0] == ranks[1][0] else ranks[0][1]


def cells(to):
    return {f"{first}, then {second}": better((first, second), to) or Measured("RFC 6724 has no rule that prefers one of them")
            for first, second in itertools.permutations(ADDRESSES, 2)}


SOURCES = Table("routing.sources", "destination", "addresses", "RFC 6724 (5), rules 2 to 8",
                {name: cells(to) for name, to in DESTINATIONS.items()})


def requests(client, names, delete=False):
    """The addresses, made or deleted in this order."""
    for name in names:
        own = ADDRESSES[name]
        yield routes.address(client.interfaces[own.device].index, f"{own.text}/64", delete=delete,
                             flags=routes.NOPREFIXROUTE | (0 if own.tentative else routes.NODAD),
                             preferred=0 if own.deprecated else 0xFFFFFFFF)


def source(client, to, index):
    """The address that connect() of a UDP socket takes."""
    with client.socket(V6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_IF, index)
        sock.connect((to, 4000, 0, 0 if scope(to) == 14 and not to.startswith("ff") else index))
        found = sock.getsockname()[0].split("%")[0]
    return next((name for name, address in ADDRESSES.items() if address.text == found),
                "its own" if found.startswith("fe80::200:5eff") else found)


@pytest.mark.table(SOURCES)
@pytest.mark.parametrize("row", SOURCES.rows)
def test_source_address_is_the_one_that_rfc_6724_prefers(net, row, table):
    """Of the two, and of the link-local address of the outgoing interface."""
    client = net["client"]
    left, right = (client.interfaces[name].index for name in ("left", "right"))
    client.pin({"net.ipv6.conf.to-left.accept_dad": 1})
    routes.carry_out(client.namespace, [
        routes.address(left, "2001:db8:1::1/64", delete=True), routes.address(right, "2001:db8:2::1/64", delete=True),
        routes.route("add", "::/0", dev=left)])
    for column in table:
        names = column.split(", then ")
        routes.carry_out(client.namespace, list(requests(client, names)))
        table.saw(source(client, DESTINATIONS[row], left))
        routes.carry_out(client.namespace, list(requests(client, names, delete=True)))
