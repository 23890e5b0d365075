"""Routes with nexthop objects of either family: where their packets go. Source: ip-nexthop(8); ip-route(8), nhid; RFC 5549."""

import socket

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import ROUTED
from netns import CommandError, missing_feature
from netns.attempt import errno_of
from netns.traffic.closing import fence

pytestmark = [pytest.mark.topology(ROUTED), pytest.mark.virtual_clock("may crash an affected kernel: needs its own machine")]

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = {"IPv4": V4, "IPv6": V6}
PORT = 4000
FAR = {V4: "203.0.113.{}", V6: "2001:db8:ff::{}"}
VIA = {V4: "192.0.2.2", V6: "2001:db8:1::2"}
# Of the client, whose only link is to the router. A group has one member.
OBJECTS = {"of the link": "dev to-router", "of a gateway": "via {via} dev to-router", "on loopback": "dev lo", "blackhole": "blackhole",
           "group": ""}
REFUSED = OneOf(("the route is refused",), "ip-nexthop(8): an IPv4 object is no next hop of an IPv6 route (RFC 5549 is about the contrary)")


def expected(route, family, kind):
    if route == V6 and family == V4:
        # A blackhole needs no address of either family.
        return OneOf(("the route is refused", "EINVAL", "ENETUNREACH"), REFUSED.reason) if kind == "blackhole" else REFUSED
    if kind == "blackhole":
        return OneOf(("EINVAL", "ENETUNREACH"), "ip-nexthop(8): packets are discarded; it does not name the errno")
    return "sent by lo" if kind == "on loopback" else "sent by to-router"


TABLE = Table("routing.nexthops", "route", "nexthop object", "ip-nexthop(8)", {
    f"{name} route": {f"{of} {kind}": expected(route, family, kind) for kind in sorted(OBJECTS, key=lambda each: each == "on loopback")
                      for of, family in FAMILIES.items()} for name, route in FAMILIES.items()})


def make(host, number, family, kind):
    """The object of this number, and the member of a group."""
    single = "of a gateway" if kind == "group" else kind
    words = OBJECTS[single].format(via=VIA[family]).split()
    try:
        if kind != "group":
            host.run(["ip", "-4" if family == V4 else "-6", "nexthop", "add", "id", str(number), *words])
            return
        host.run(["ip", "-4" if family == V4 else "-6", "nexthop", "add", "id", str(number + 1), *words])
        host.run(["ip", "nexthop", "add", "id", str(number), "group", str(number + 1)])
    except CommandError as error:
        raise missing_feature("the kernel or ip(8) has no nexthop objects", error) from error


def refuses(host, route, to, number):
    try:
        host.run(["ip", "-4" if route == V4 else "-6", "route", "add", to, "nhid", str(number)])
    except CommandError:
        return True
    return False


def outcome(host, others, route, to):
    """The device by which a datagram leaves this host, and none of the others."""
    with host.capture("udp") as packets, others[0].capture("udp") as beside, host.socket(route, socket.SOCK_DGRAM) as sock:
        error = errno_of(sock.sendto, b"x", (to, PORT))
        fence(host, host, {V4: "127.0.0.1", V6: "::1"}[route])
    if isinstance(error, str):
        return error
    found = sorted({packet.interface for packet in packets.sent() if packet.destination == to})
    strange = [packet for packet in beside.sent() if packet.destination == to]
    return f"sent by {' and '.join(found) or 'no device'}{', and by another host' if strange else ''}"


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_packets_of_a_route_go_where_its_nexthop_object_says(net, row, table):
    """By the device of the same host, in whatever order objects of the two hosts are made."""
    client, server = net.nodes("client", "server")
    route = FAMILIES[row.split()[0]]
    neighbours = [f"neighbour replace {address} lladdr {client.interfaces['router'].mac} dev to-router nud permanent"
                  for address in [*VIA.values(), *(FAR[route].format(number) for number in range(1, 30))]]
    client.run(["ip", "-batch", "-"], stdin="\n".join(neighbours) + "\n")
    for number, column in enumerate(table, 1):
        of, _, kind = column.partition(" ")
        to = FAR[route].format(number)
        if kind != "blackhole" and "loopback" in kind:
            # State of a nexthop on loopback must be each host's own.
            make(server, 10 * number, FAMILIES[of], kind)
            refuses(server, route, f"{to}/{32 if route == V4 else 128}", 10 * number)
        make(client, 10 * number, FAMILIES[of], kind)
        if refuses(client, route, f"{to}/{32 if route == V4 else 128}", 10 * number):
            table.saw("the route is refused")
            continue
        table.saw(outcome(client, (server,), route, to))
