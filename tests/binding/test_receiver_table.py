"""Which of two sockets of a port receives a datagram or a connection: by address, device and peer, alone and beside others."""

import socket
import struct
from contextlib import ExitStack

import pytest

from fixtures.binding import V4, Ask, crowd, made
from fixtures.table import Measured, Must, Table
from netns import Link, Route, Topology
from netns.attempt import errno_of
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.wait import eventually

# The server has two links, and answers at both addresses on each of them.
pytestmark = pytest.mark.topology(Topology(links=(
    Link("client", "server", ipv4="192.0.2.0/24", ipv6="2001:db8:1::/64"),
    Link("other", "server", ipv4="198.51.100.0/24", ipv6="2001:db8:2::/64"),
), routes=(Route("client", via="server"), Route("other", via="server"))))

PORT = 4000
CLIENT_PORT = 5000
GROUP = {V4: "239.1.2.3", socket.AF_INET6: "ff0e::1234"}
ANY = {V4: "0.0.0.0", socket.AF_INET6: "::"}


class End:
    """What a socket is bound to: the address on the link to `address`, on the device to `device`; connected to `peer`."""

    def __init__(self, address="", device="", peer=""):
        self.address, self.device, self.peer = address, device, peer

    def takes(self, sender, to):
        """Whether a datagram can be for it: of a group only if it has no address (ip(7), IP_MULTICAST_ALL)."""
        address = not self.address or self.address == to
        return address and self.device in ("", sender) and self.peer in ("", sender) and (to != "group" or not self.peer)


# near is the server's address on its link to the client, far the other one.
ENDS = {"any": End(), "near": End("client"), "far": End("other"), "any on to-client": End(device="client"),
        "any on to-other": End(device="other"), "near, connected to client": End("client", peer="client")}
TARGETS = {"near": "client", "far": "other", "group": "group"}
PACKETS = {f"{sender} to {to}": (sender, to) for sender in ("client", "other") for to in TARGETS}
LISTENERS = [name for name, end in ENDS.items() if not end.peer]
SOURCE = "ip(7): the address that the socket is bound to; socket(7) SO_BINDTODEVICE; connect(2): the only address from which datagrams come"
REFUSED = Must("ECONNREFUSED", "RFC 1122, 4.1.3.1; RFC 4443, 3.1; RFC 9293, 3.10.7.1")


def expected(first, second, packet, group=False):
    sender, to = PACKETS[packet]
    takers = [name for name, end in (("first", ENDS[first]), ("second", ENDS[second])) if end.takes(sender, TARGETS[to])]
    if to == "group":
        return Must(" and ".join(takers) or "nobody", "RFC 1122, 3.3.7; ip(7), IP_MULTICAST_ALL; socket(7), SO_BINDTODEVICE")
    if len(takers) == 2 and group and first == second:
        return Must("one of the two", "socket(7), SO_REUSEPORT distributes what comes in")
    if len(takers) == 2:
        return Measured("no document says which of two sockets that match receives it")
    return takers[0] if takers else REFUSED


DATAGRAMS = Table("binding.receiver", "first socket", "second socket and datagram", SOURCE, {
    first + beside: {f"{second}, {packet}": expected(first, second, packet) for second in ENDS for packet in PACKETS}
    for beside in ("", ", beside 12 others") for first in ENDS})
CONNECTIONS = Table("binding.listener", "first listener", "second listener and SYN", SOURCE, {
    first + beside: {f"{second}, {packet}": expected(first, second, packet, group=True) for second in LISTENERS
                     for packet in PACKETS if not packet.endswith("group")}
    for beside in ("", ", beside 12 others") for first in LISTENERS})


class Site:
    """The server's sockets, and what reaches them."""

    def __init__(self, net, family):
        self.net, self.family, self.server = net, family, net["server"]
        self.fence = self.server.socket(family, socket.SOCK_DGRAM)
        self.fence.bind((ANY[family], PORT + 1))
        self.fence.settimeout(10)
        self.member = self.server.socket(family, socket.SOCK_DGRAM)
        for link in ("client", "other"):
            self.join(self.server.interfaces[link].index)

    def join(self, index):
        """Be a member of the group on this interface."""
        if self.family == V4:
            request = socket.inet_aton(GROUP[V4]) + bytes(4) + struct.pack("=i", index)
            self.member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        else:
            request = socket.inet_pton(self.family, GROUP[self.family]) + struct.pack("=i", index)
            self.member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)

    def open(self, stack, protocol, name):
        end = ENDS[name]
        address = self.server.address(self.family, end.address) if end.address else ANY[self.family]
        sock = stack.enter_context(made(self.server, protocol, Ask(address, ("REUSEPORT" if protocol == "TCP" else "REUSEADDR",))))
        if end.device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"to-{end.device}".encode())
        sock.bind((address, PORT))
        if protocol == "TCP":
            sock.listen()
        if end.peer:
            sock.connect((self.net[end.peer].address(self.family), CLIENT_PORT))
        sock.setblocking(False)
        return sock

    def address(self, to):
        return GROUP[self.family] if to == "group" else self.server.address(self.family, TARGETS[to])

    def datagram(self, ends, sender, to):
        """Who has the datagram, once one that was sent after it has arrived."""
        with self.net[sender].socket(self.family, socket.SOCK_DGRAM) as sock:
            sock.bind((self.net[sender].address(self.family), CLIENT_PORT))
            if to == "group":
                sock.sendto(b"x", (self.address(to), PORT))
            else:
                sock.connect((self.address(to), PORT))
                sock.send(b"x")
            with self.net[sender].socket(self.family, socket.SOCK_DGRAM) as last:
                last.sendto(b"fence", (self.server.address(self.family, sender), PORT + 1))
            self.fence.recv(100)
            takers = [name for name, end in ends.items() if errno_of(end.recv, 100) == b"x"]
            if takers or to == "group":
                return " and ".join(takers) or "nobody"
            sock.settimeout(5)
            return errno_of(sock.recv, 100) or "nobody"

    def connection(self, ends, sender, to):
        """Who accepts the connection."""
        with self.net[sender].socket(self.family) as sock:
            sock.settimeout(5)
            error = errno_of(sock.connect, (self.address(to), PORT))
            if error:
                return error
            takers = []
            eventually("listener that accepts", lambda: takers.extend(self.accepts(ends)) or len(takers), 1, within=5)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            return takers[0]

    @staticmethod
    def accepts(ends):
        for name, end in ends.items():
            try:
                conn, _address = end.accept()
            except BlockingIOError:
                continue
            conn.close()
            yield name


def run(table, row, site, protocol, reach):
    """Open both sockets of each cell, beside the others of the row, and say which of them the packet reaches."""
    first, _, others = row.partition(", beside ")
    options = ("REUSEPORT" if protocol == "TCP" else "REUSEADDR",)
    with ExitStack() as beside:
        for each in crowd(site.server, protocol, 12, PORT, options) if others else ():
            beside.enter_context(each)
            if protocol == "TCP":
                each.listen()
        for column in table:
            second, packet = column.rsplit(", ", 1)
            with ExitStack() as stack:
                ends = {"first": site.open(stack, protocol, first), "second": site.open(stack, protocol, second)}
                seen = reach(ends, *PACKETS[packet])
                table.saw("one of the two" if protocol == "TCP" and first == second and seen in ends else seen)


@pytest.fixture
def site(net, family):
    net["server"].pin(NO_ICMP_LIMITS)
    return Site(net, family)


@pytest.mark.table(DATAGRAMS)
@pytest.mark.parametrize("row", DATAGRAMS.rows)
def test_datagram_reaches_the_socket_that_it_matches(site, row, table):
    """By address, device and peer; a datagram of a group reaches all that match, and one that matches none is refused."""
    run(table, row, site, "UDP", site.datagram)


@pytest.mark.table(CONNECTIONS)
@pytest.mark.parametrize("row", CONNECTIONS.rows)
def test_connection_reaches_the_listener_that_it_matches(site, row, table):
    """By address and device; one that matches none is refused."""
    run(table, row, site, "TCP", site.connection)
