"""To whom a packet is sent on the link, and in which sizes: each kind of destination x the socket and the routes. Source: RFC 919, 7;
RFC 922, 7; RFC 1112, 6.4; RFC 1122, 3.3.1; ip-route(8), mtu."""

import socket

import pytest

from fixtures.table import Measured, Table
from fixtures.topologies import ROUTED
from netns.attempt import errno_of
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(ROUTED)

V4 = socket.AF_INET
PORT, IP_MTU_DISCOVER, DONT, IP_MULTICAST_IF = 4000, 10, 0, 32
NEIGHBOUR, NEIGHBOUR_MAC = "192.0.2.77", "00:00:5e:00:53:77"
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
DESTINATIONS = {"limited broadcast": "255.255.255.255", "broadcast of the network": "192.0.2.255",
                "broadcast of another network": "198.51.100.255", "multicast": "224.0.1.1", "multicast of the link": "224.0.0.5",
                "neighbour": NEIGHBOUR, "host of another network": "203.0.113.9"}
SOCKETS = ("unbound", "bound to its address", "bound to its device", "connected", "connected, bound to its address")
# ip-route(8). A default route of metric 10 leads to the gateway; without one there is only the link's.
ROUTES = {"a default route": ("default via 192.0.2.2 dev to-router",), "no default route": (),
          "a default route to the link": ("default dev to-router",)}
GATEWAY, EVERYBODY, GROUP, HOST = "to the gateway", "to everybody", "to the group", "to the host"


def expected(to, sock, routes):
    kind = to.split()[0]
    if to in ("limited broadcast", "broadcast of the network", "multicast", "multicast of the link"):
        answer = GROUP if kind == "multicast" else EVERYBODY
        if routes != "a default route" and to != "broadcast of the network":
            return Measured("without a default route by a gateway a socket may need one to know the interface")
        return answer
    if to == "neighbour":
        return HOST
    # RFC 1122, 3.3.6: a directed broadcast of another network is for its router to expand.
    return GATEWAY if routes == "a default route" else Measured("no document says what a host without a gateway sends")


WHERE = Table("routing.link_destination", "destination", "socket, routes", "RFC 919, 7; RFC 1112, 6.4; RFC 1122, 3.3.1", {
    to: {f"{sock}, {routes}": expected(to, sock, routes) for sock in SOCKETS for routes in ROUTES} for to in DESTINATIONS})


def made(client, how):
    sock = client.socket(V4, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DONT)
    if "address" in how:
        sock.bind((client.address(V4), 0))
    if "device" in how:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"to-router")
    return sock


def addressee(net, mac):
    known = {BROADCAST_MAC: EVERYBODY, NEIGHBOUR_MAC: HOST, net["router"].interfaces["client"].mac: GATEWAY}
    return known.get(mac, GROUP if mac.startswith("01:00:5e") else mac)


def sent(packets, to):
    return [packet for packet in packets.sent() if packet.destination == to]


@pytest.mark.table(WHERE)
@pytest.mark.parametrize("row", WHERE.rows)
def test_packet_is_sent_to_whom_its_destination_is_for(net, row, table):
    """Broadcasts to everybody on the link, a group to the group, all else to the host or to the gateway."""
    client = net["client"]
    to = DESTINATIONS[row]
    client.run(["ip", "neighbour", "replace", NEIGHBOUR, "lladdr", NEIGHBOUR_MAC, "dev", "to-router"])
    for column in table:
        how, _, routes = column.rpartition(", ")
        client.run(["ip", "-batch", "-"], stdin="route flush root 0/0\n" + "".join(
            f"route add {route}\n" for route in ("192.0.2.0/24 dev to-router src 192.0.2.1", *ROUTES[routes])))
        with made(client, how) as sock, client.capture("udp") as packets:
            error = errno_of(sock.connect, (to, PORT)) if "connected" in how else None
            if not isinstance(error, str):
                error = errno_of(sock.send, b"x") if "connected" in how else errno_of(sock.sendto, b"x", (to, PORT))
            fence(client, client, "127.0.0.1")
        found = sent(packets, to)
        table.saw(error if isinstance(error, str) else addressee(net, found[0].frame.data[:6].hex(":")) if found else "nothing")


# Types of routes, with the destination that each is for.
KINDS = {"unicast to the link": ("neighbour", "{to}/32 dev to-router"),
         "unicast via a gateway": ("host of another network", "{to}/32 via 192.0.2.2"),
         "broadcast": ("broadcast of the network", "broadcast {to} dev to-router table local"),
         "multicast": ("multicast", "multicast {to}/32 dev to-router")}
MTU, LINK = 1300, 1500
LOCKS = {"mtu": "mtu {mtu}", "mtu lock": "mtu lock {mtu}"}
SIZES = (MTU - 1, MTU, MTU + 1, LINK, LINK + 1, 4000)
HEADERS = 20 + 8


def fragments(size):
    """RFC 791, 3.2: all but the last are as large as they can be."""
    room, left = (MTU - 20) // 8 * 8, size - 20
    return "+".join(str(20 + min(room, left - at)) for at in range(0, left, room))


def sized(kind, size, how):
    if kind == "multicast" and how == "connected":
        return Measured("ip_route_output_key_hash(): a source address directs multicasts to its interface, whatever the routes")
    return str(size) if size <= MTU else fragments(size)


SIZED = Table("routing.route_mtu", "route", "size of the packet", "ip-route(8), mtu; RFC 791, 3.2", {
    f"{kind}, {lock}": {f"{size} bytes, {how}": sized(kind, size, how) for size in SIZES for how in ("unbound", "connected")}
    for kind in KINDS for lock in LOCKS})


@pytest.mark.table(SIZED)
@pytest.mark.parametrize("row", SIZED.rows)
def test_route_mtu_holds_for_each_type_of_route(net, row, table):
    """Datagrams that may be fragmented are fragmented to it."""
    client = net["client"]
    kind, lock = row.rsplit(", ", 1)
    name, route = KINDS[kind]
    to = DESTINATIONS[name]
    client.run(["ip", "neighbour", "replace", NEIGHBOUR, "lladdr", NEIGHBOUR_MAC, "dev", "to-router"])
    words = f"{route.format(to=to)} src 192.0.2.1 {LOCKS[lock].format(mtu=MTU)}".split()
    client.run(["ip", "route", "replace", *words])
    for column in table:
        size, how = column.split(" bytes, ")
        with made(client, how) as sock, client.capture() as packets:
            if how == "connected":
                sock.connect((to, PORT))
            sock.sendto(bytes(int(size) - HEADERS), (to, PORT))
            fence(client, client, "127.0.0.1")
        table.saw("+".join(str(packet.frame.length - 14) for packet in sent(packets, to)) or "nothing")
