"""ICMP errors through NAT, about packets in both directions: who is told what, in the addresses that he knows.

Source: RFC 5508, 4.2 (REQ-3 to REQ-5); RFC 3022, 4.3; ip(7), IP_RECVERR.
"""

import select
import socket
import struct

import pytest

from fixtures.icmp_errors import CODES, HOST_UNREACHABLE, TOO_BIG, UNSAID, V4, V6, meaning
from fixtures.icmp_sockets import ECHO, PING
from fixtures.table import Measured, Must, Table
from fixtures.topologies import ROUTED
from netns import eventually
from netns.attempt import errno_name, so_error
from netns.packets import errqueue, icmp

pytestmark = pytest.mark.topology(ROUTED)

CLIENT_PORT, PORT, MTU = 40000, 7000, 1300
TRANSLATED = {"no NAT": (), "SNAT": ("SNAT",), "DNAT": ("DNAT",), "SNAT and DNAT": ("SNAT", "DNAT")}
# Whose packet the error is about, and who sends the error.
DIRECTIONS = {"client's packet": "server", "server's packet": "client"}
ROWS = {f"{kind}, {nat}, {direction}": (kind, nat, direction) for kind in ("UDP", "TCP", "ping") for nat in TRANSLATED
        for direction in DIRECTIONS if kind != "ping" or direction == "client's packet"}


def expected(family, kind, message):
    found = meaning(family, *message)
    if message in UNSAID[family]:
        return Measured(UNSAID[family][message])
    if message == TOO_BIG[family]:
        return "nothing" if kind == "TCP" else f"EMSGSIZE, queued MTU {MTU}"
    if found is None:
        if kind == "ping":
            return Measured("RFC 6633 and RFC 1122, 3.2.2.2 take this for no error; ping_err() has an errno for it")
        return Must("nothing", "RFC 6633, 5; RFC 1122, 3.2.2.2: these are no errors")
    return f"{found.errno} at once" if kind == "TCP" else f"{found.errno}, queued"


def cells(family):
    return {row: {f"{number}/{code}": expected(family, kind, (number, code)) for number, code in CODES[family]}
            for row, (kind, _nat, _direction) in ROWS.items()}


SOURCE = "RFC 5508, 4.2: translated, and passed on; ip(7), IP_RECVERR"
IPV4 = Table("errnos.icmp_nat", "packet", "type/code", SOURCE, cells(V4))
IPV6 = Table("errnos.icmpv6_nat", "packet", "type/code", SOURCE, cells(V6))


class TranslatedFlow:
    """A flow from the client through the translating router to the server, and both ends' views of it."""

    def __init__(self, net, family, kind, nat):
        self.family, self.kind = family, kind
        self.client, self.server, self.router = net.nodes("client", "server", "router")
        near, far = self.router.address(family, "client"), self.router.address(family, "server")
        here, there = self.client.address(family), self.server.address(family)
        # The addresses of the client and of the server, as each end knows them.
        self.at_client = (here, near if "DNAT" in TRANSLATED[nat] else there)
        self.at_server = (far if "SNAT" in TRANSLATED[nat] else here, there)
        ip = "ip" if family == V4 else "ip6"
        what = {"UDP": f"udp dport {PORT}", "TCP": f"tcp dport {PORT}", "ping": f"meta l4proto {PING[family]}"}[kind]
        rules = ["add table inet nat", "add chain inet nat to { type nat hook prerouting priority -100; }",
                 "add chain inet nat from { type nat hook postrouting priority 100; }"]
        if "DNAT" in TRANSLATED[nat]:
            rules.append(f"add rule inet nat to {ip} daddr {near} {ip} saddr {here} {what} dnat {ip} to {there}")
        if "SNAT" in TRANSLATED[nat]:
            rules.append(f"add rule inet nat from {ip} daddr {there} {what} snat {ip} to {far}")
        self.router.nft("\n".join(rules))

    def open(self):
        """The sockets of both ends, the first packet having arrived; the server has none for ping."""
        with self.client.capture("tcp") as sent, self.server.capture("tcp") as answered:
            ends = {"UDP": self.udp, "TCP": self.tcp, "ping": self.ping}[self.kind]()
        self.following = {}
        if self.kind == "TCP":
            self.following = {"client": next_number(sent), "server": next_number(answered)}
        return dict(zip(("client", "server"), ends))

    def bound(self, host, kind, protocol, address, port):
        sock = host.socket(self.family, kind, protocol)
        errqueue.receive_errors(sock)
        sock.bind((address, port))
        return sock

    def udp(self):
        ours = self.bound(self.client, socket.SOCK_DGRAM, 0, self.at_client[0], CLIENT_PORT)
        theirs = self.bound(self.server, socket.SOCK_DGRAM, 0, self.at_server[1], PORT)
        ours.connect((self.at_client[1], PORT))
        theirs.settimeout(5)
        ours.send(b"x")
        theirs.connect(theirs.recvfrom(1)[1])
        theirs.settimeout(None)
        return ours, theirs

    def tcp(self):
        listener = self.bound(self.server, socket.SOCK_STREAM, 0, self.at_server[1], PORT)
        listener.listen()
        ours = self.bound(self.client, socket.SOCK_STREAM, 0, self.at_client[0], CLIENT_PORT)
        ours.connect((self.at_client[1], PORT))
        theirs = self.server.adopt(listener.accept()[0])
        errqueue.receive_errors(theirs)
        return ours, theirs

    def ping(self):
        self.client.pin({"net.ipv4.ping_group_range": "0 2147483647"})
        ours = self.bound(self.client, socket.SOCK_DGRAM, PING[self.family], self.at_client[0], CLIENT_PORT)
        ours.connect((self.at_client[1], 0))
        ours.settimeout(5)
        ours.send(struct.pack("!BBHHH", ECHO[self.family], 0, 0, 0, 1))
        ours.recv(100)
        ours.settimeout(None)
        return (ours,)

    def quote(self, sender):
        """What `sender` of the error, "client" or "server", quotes of the packet that the other one sent."""
        source, destination = (self.at_server if sender == "server" else self.at_client[::-1])
        ports = (CLIENT_PORT, PORT) if sender == "server" else (PORT, CLIENT_PORT)
        if self.kind == "ping":
            return icmp.header_quote(source, destination, PING[self.family],
                                     struct.pack("!BBHHH", ECHO[self.family], 0, 0, CLIENT_PORT, 1))
        if self.kind == "UDP":
            return icmp.udp_quote(source, ports[0], destination, ports[1])
        seq = self.following["client" if sender == "server" else "server"]
        return icmp.header_quote(source, destination, socket.IPPROTO_TCP,
                                 struct.pack("!HHIIBBHHH", *ports, seq, 0, 0x50, 0x10, 1000, 0, 0))

    def details(self, sender, message):
        """What the error queue must have: the one who sent the error and the packet's destination, as the one who is told knows them."""
        other = self.at_client[1] if sender == "server" else self.at_server[0]
        port = {"ping": 0}.get(self.kind, PORT if sender == "server" else CLIENT_PORT)
        return message, other, (other, port)


def next_number(packets):
    last = packets.sent().some()[-1]
    return (last.seq + last.length + ("S" in last.flags)) % 2**32


def told(sock, details, within):
    """SO_ERROR within so many seconds, and ", queued" with the MTU if any, if the error queue has these details."""
    poll = select.poll()
    poll.register(sock, 0)
    poll.poll(within * 1000)
    number, queued = so_error(sock), errqueue.pending(sock) if sock.type != socket.SOCK_STREAM else None
    if queued is None:
        return f"{number} at once" if number else "nothing"
    found = (queued.kind, queued.code), queued.offender, queued.destination
    mtu = f" MTU {queued.info}" if number == "EMSGSIZE" else ""
    return f"{number}, queued{mtu}" if found == details and errno_name(queued.errno) == number else f"{number}, queued {found}"


def check(net, family, row, table):
    kind, nat, direction = ROWS[row]
    flow, sender = TranslatedFlow(net, family, kind, nat), DIRECTIONS[direction]
    sock = flow.open()["client" if sender == "server" else "server"]
    errors = icmp.Sender(net[sender], net[sender], family)
    quoted, last = flow.quote(sender), HOST_UNREACHABLE[family]
    last_details = flow.details(sender, last)
    for column in table:
        message = tuple(map(int, column.split("/")))
        errors.send(*message, quoted, rest=MTU, counted=False)
        seen = told(sock, flow.details(sender, message), within=0.005)
        if seen == "nothing":
            # An error that does arrive was sent after it.
            errors.send(*last, quoted, counted=False)
            fence = "EHOSTUNREACH at once" if kind == "TCP" else "EHOSTUNREACH, queued"
            eventually("what the socket is told of the last error", lambda: told(sock, last_details, within=0.01), fence, within=5)
        table.saw(seen)


@pytest.mark.table(IPV4)
@pytest.mark.parametrize("row", IPV4.rows)
def test_nat_passes_icmp_errors_on_in_both_directions(net, row, table):
    """The sender of the packet is told, with the addresses that it knows: the other end is both destination and offender."""
    check(net, V4, row, table)


@pytest.mark.table(IPV6)
@pytest.mark.parametrize("row", IPV6.rows)
def test_nat_passes_icmpv6_errors_on_in_both_directions(net, row, table):
    """Likewise, with errors of unknown types."""
    check(net, V6, row, table)
