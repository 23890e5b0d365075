"""Where connect() may go, and the source address it chooses: every kind of destination x each kind of socket and its own address."""

import socket
import struct

import pytest

from fixtures.binding import V6, Ask, made
from fixtures.table import LeftOut, Measured, Must, OneOf, Table
from netns import Link, Topology
from netns.attempt import errno_of

pytestmark = pytest.mark.topology(Topology(links=(
    Link("client", "server", ipv4="192.0.2.0/24", ipv6="2001:db8:1::/64"),
    Link("client", "other", ipv4="198.51.100.0/24", ipv6="2001:db8:2::/64"),
)))

PORT = 4000
SOURCE = "connect(2); RFC 1122, 3.3.4.3 and RFC 6724, 5, rules 1 and 5: the source address"
PROTOCOLS = ("TCP", "UDP", "raw", "ping")
WAYS = ("unbound", "bound to near", "bound to far", "bound to loopback", "with SO_BROADCAST", "on to-server")
# The addresses of the client that a socket is bound to, or connects from; near is on the link to the server.
OWN = {"near": ("192.0.2.1", "2001:db8:1::1"), "far": ("198.51.100.1", "2001:db8:2::1"), "loopback": ("127.0.0.1", "::1"),
       "link-local": ("", "fe80::200:5eff:fe00:5301")}
SERVER_LINK_LOCAL = "fe80::200:5eff:fe00:5302"
DESTINATIONS = {
    "the host itself": ("192.0.2.1", "2001:db8:1::1", "::ffff:192.0.2.1"),
    "its loopback": ("127.0.0.1", "::1", "::ffff:127.0.0.1"),
    "another host": ("192.0.2.2", "2001:db8:1::2", "::ffff:192.0.2.2"),
    "no route": ("203.0.113.9", "2001:db8:ff::9", "::ffff:203.0.113.9"),
    "unspecified": ("0.0.0.0", "::", "::ffff:0.0.0.0"),
    "broadcast": ("192.0.2.255", "255.255.255.255"),
    "multicast": ("224.0.0.1", "ff05::2", "ff02::1%to-server"),
    "link-local": (f"{SERVER_LINK_LOCAL}%to-server",),
    "link-local without a device": (SERVER_LINK_LOCAL, "ff02::1"),
    "IPv4-mapped, V6ONLY": ("V6ONLY ::ffff:192.0.2.2", "V6ONLY ::ffff:127.0.0.1"),
}
KINDS = {address: kind for kind, addresses in DESTINATIONS.items() for address in addresses}
ERRORS = ("ENETUNREACH", "EADDRNOTAVAIL", "EINVAL", "EHOSTUNREACH", "EACCES", "EAFNOSUPPORT")


def expected(address, kind, protocol, way):
    bound = way.removeprefix("bound to ") if way.startswith("bound") else ""
    if bound and (kind == "IPv4-mapped, V6ONLY" or protocol in ("raw", "ping") and "ffff:" in address):
        return LeftOut("the socket cannot be bound to an address of this kind: binding.address")
    if protocol in ("raw", "ping") and "ffff:" in address:
        return Measured("of IPv4-mapped addresses RFC 3493, 3.7 speaks for TCP and UDP only")
    if kind == "IPv4-mapped, V6ONLY":
        return OneOf(ERRORS, "RFC 3493, 5.3: such a socket is for IPv6 alone; no document names the errno")
    if protocol == "TCP" and (kind in ("broadcast", "multicast") or address.startswith("ff")):
        return OneOf(ERRORS, "ip(7): connection-oriented sockets use only unicast addresses; it does not name the errno")
    if kind == "no route":
        return Measured("no document says whether a device without a route will do") if way == "on to-server" else "ENETUNREACH"
    if kind == "unspecified":
        return Measured("RFC 1122, 3.2.1.3 and RFC 4291, 2.5.2 forbid it on the wire; no document says what connect() does")
    return unicast(address, kind, protocol, way, bound)


def unicast(address, kind, protocol, way, bound):
    if kind == "link-local without a device" and way != "on to-server":
        return OneOf(ERRORS, "RFC 4007, 6: the address is ambiguous; no document names the errno")
    if kind == "broadcast":
        if way == "with SO_BROADCAST":
            some = address == "255.255.255.255"
            return Measured("no document says which of the addresses is the source") if some else "connected from near"
        if bound == "loopback":
            return Measured("RFC 1122, 3.2.1.3 forbids the source on the wire; no document says which error comes first")
        return OneOf(("EACCES", "EPERM", *(("ENETUNREACH",) if address == "255.255.255.255" else ())),
                     "connect(2): without the broadcast flag, or without a route")
    loopback = kind == "its loopback"
    if (bound == "loopback") != loopback and bound or loopback and way == "on to-server":
        return LeftOut("nobody answers") if protocol == "TCP" else Measured("RFC 1122, 3.2.1.3 forbids it on the wire only")
    if bound:
        return f"connected from {bound}" if protocol != "TCP" or bound == "near" else LeftOut("the server has no route back")
    if loopback:
        return "connected from loopback"
    if kind == "multicast" and address == "224.0.0.1" and way != "on to-server":
        return Must("ENETUNREACH", "connect(2): there is no route to it")
    if kind == "multicast" and way != "on to-server" and "%" not in address:
        return Measured("no document says which device is chosen")
    scope = kind.startswith("link-local") or address.startswith("ff02")
    return "connected from link-local" if scope else "connected from near"


TABLE = Table("binding.connect", "destination", "socket", SOURCE, {
    address: {f"{protocol}, {way}": expected(address, kind, protocol, way) for protocol in PROTOCOLS for way in WAYS}
    for address, kind in KINDS.items()})


def own_name(address):
    """Which of the host's own addresses this is."""
    address = address.partition("%")[0].removeprefix("::ffff:")
    return next((name for name, addresses in OWN.items() if address in addresses), address)


def outcome(client, text, protocol, way):
    """connect() of a socket of its own, and the source address."""
    address, _, scope = text.partition("%")
    ask = Ask(address)
    index = client.interfaces[scope.removeprefix("to-")].index if scope else 0
    with made(client, protocol, ask) as sock:
        sock.settimeout(10)
        if way.startswith("bound to "):
            here = OWN[way.removeprefix("bound to ")]
            sock.bind((f"::ffff:{here[0]}" if "ffff:" in address else here[ask.family == V6], 0))
        elif way == "with SO_BROADCAST":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        elif way == "on to-server":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"to-server")
        port = 0 if protocol in ("raw", "ping") else PORT
        error = errno_of(sock.connect, (ask.literal, port, 0, index) if ask.family == V6 else (ask.literal, port))
        if error:
            return error
        if protocol == "TCP":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        return f"connected from {own_name(sock.getsockname()[0])}"


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_connect_accepts_the_destinations_that_its_socket_can_reach(net, row, table):
    """And chooses as source the address of the interface that it goes by, unless the socket is bound to another."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.ping_group_range": "0 0"})
    for host in (client, server):
        listener = made(host, "TCP", Ask("::"))
        listener.bind(("::", PORT))
        listener.listen(1000)
    for column in table:
        table.saw(outcome(client, row, *column.split(", ")))
