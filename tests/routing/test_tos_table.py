"""Routing by TOS: each value of the TOS byte, its two ECN bits included, for packets of each origin; the way that they go and the address
that a router records. Source: RFC 3168, 5 and 23; RFC 2474, 3: the ECN bits are no part of the TOS; ip-route(8) and ip-rule(8), tos."""

import socket
import struct

import pytest

from fixtures.table import LeftOut, Measured, OneOf, Table
from fixtures.topologies import TWO_WAYS
from netns import ExpectationFailed, eventually
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.netlink import routes
from netns.packets.icmp import checksum

pytestmark = pytest.mark.topology(TWO_WAYS)

V4 = socket.AF_INET
TABLE, LOW_DELAY, PORT = 100, 0x10, 4000
TO = "203.0.113.9"
# The source address of the route for this TOS, and of the other one.
SOURCES = {"left": "198.18.2.1", "right": "198.18.3.1"}
CLIENTS_SIDE = "192.0.2.2"
WAYS = {"to-left": "left", "to-right": "right"}
ECN = {"Not-ECT": 0, "ECT(1)": 1, "ECT(0)": 2, "CE": 3}
TOS = {"low delay": LOW_DELAY, "no TOS": 0, "throughput": 0x08, "reliability": 0x04}
# Two routes of one device differ by their source address alone, which not every packet shows.
ONE_DEVICE = "route of one device"
SELECTED_BY = ("route", "rule", ONE_DEVICE)
RECORD_ROUTE, TIMESTAMP, ADDRESSES = 7, 68, 1
OPTIONS = {"": b"", "Record Route": bytes([RECORD_ROUTE, 7, 4]) + bytes(5), "Timestamp": bytes([TIMESTAMP, 12, 5, ADDRESSES]) + bytes(8)}
SOCKETS = ("UDP sendto", "UDP connect", "raw", "ping")
FORWARDED = {"forwarded": "", "forwarded, Record Route": "Record Route", "forwarded, Timestamp": "Timestamp"}
PACKETS = (*SOCKETS, "IP_HDRINCL", *FORWARDED, "echo reply", "echo reply, Record Route")


def expected(packet, tos, how):
    if how == ONE_DEVICE and packet in ("forwarded", "IP_HDRINCL", "echo reply", "echo reply, Record Route"):
        return LeftOut("nothing in this packet tells the routes apart")
    if packet == "IP_HDRINCL":
        return Measured("raw(7) does not say whether the kernel looks into a header that it is given")
    way = "left" if TOS[tos] == LOW_DELAY else "right"
    # RFC 791, 3.1: the address as known in the environment into which it is forwarded, that is of the way out.
    if packet == "forwarded, Timestamp":
        return LeftOut("nothing tells the routes apart") if how == ONE_DEVICE else \
            OneOf((f"{way}, recorded {way}", f"{way}, recorded the client's side"), "RFC 791, 3.1 does not say which")
    return f"{way}, recorded {way}" if packet.startswith("forwarded,") else way


CELLS = {f"{tos}, {ecn}, by {how}": (how, TOS[tos] | number) for how in SELECTED_BY for tos in TOS for ecn, number in ECN.items()}
TABLES = Table("routing.tos", "packet", "TOS, ECN, selected by", "RFC 3168, 5; ip-route(8), ip-rule(8), tos", {
    packet: {column: expected(packet, column.split(", ")[0], how) for column, (how, _byte) in CELLS.items()} for packet in PACKETS})


def header(source, to, tos, options=b"", protocol=socket.IPPROTO_UDP, payload=b""):
    data = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, tos, 20 + len(options) + len(payload), 1, 0, 64, protocol, 0)
    data += socket.inet_aton(source) + socket.inet_aton(to) + options
    return data[:10] + struct.pack("!H", checksum(data)) + data[12:] + payload


def echo(kind):
    message = struct.pack("!BBHHH", kind, 0, 0, 1, 1)
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


class ByTos:
    """The router's routes, by the TOS of a route or of a rule, and the packets."""

    def __init__(self, net, packet):
        self.client, self.router, self.packet = net["client"], net["router"], packet
        self.router.pin({**NO_ICMP_LIMITS, "net.ipv4.ping_group_range": "0 0"})
        self.router.run(["ip", "-batch", "-"], stdin="link set to-left arp off\nlink set to-right arp off\n")

    def requests(self, how, operation):
        left, right = (self.router.interfaces[each].index for each in ("left", "right"))
        plain = routes.route(operation, f"{TO}/32", dev=right, src=SOURCES["right"])
        if how == ONE_DEVICE:
            plain = routes.route(operation, f"{TO}/32", dev=left, src=SOURCES["right"])
        if how != "rule":
            return [plain, routes.route(operation, f"{TO}/32", dev=left, src=SOURCES["left"], tos=LOW_DELAY)]
        return [plain, routes.route(operation, f"{TO}/32", dev=left, src=SOURCES["left"], table=TABLE),
                routes.rule(V4, delete=operation == "delete", tos=LOW_DELAY, table=TABLE, priority=10)]

    def send(self, tos):
        if self.packet in SOCKETS or self.packet == "IP_HDRINCL":
            return self.local(tos)
        source = self.client.address(V4)
        if self.packet.startswith("echo reply"):
            # From the destination, by the client.
            options = OPTIONS["Record Route"] if "Record" in self.packet else b""
            data = header(TO, self.router.address(V4, "client"), tos, options, socket.IPPROTO_ICMP, echo(8))
            to = self.router.address(V4, "client")
        else:
            data, to = header(source, TO, tos, OPTIONS[FORWARDED[self.packet]], payload=struct.pack("!HHHH", 1, PORT, 8, 0)), TO
        with self.client.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(data, (to, 0))

    def local(self, tos):
        kinds = {"raw": (socket.SOCK_RAW, 253), "ping": (socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
                 "IP_HDRINCL": (socket.SOCK_RAW, socket.IPPROTO_RAW)}
        with self.router.socket(V4, *kinds.get(self.packet, (socket.SOCK_DGRAM,))) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
            if self.packet == "UDP connect":
                sock.connect((TO, PORT))
                sock.send(b"x")
                return
            data = {"ping": echo(8), "IP_HDRINCL": header(self.router.address(V4, "client"), TO, tos)}.get(self.packet, b"x")
            sock.sendto(data, (TO, PORT if self.packet.startswith("UDP") else 0))

    def outcome(self, how, tos):
        """The way that the packet goes, and whose address is in its option. Of one device the source address says which route it was."""
        with self.router.capture() as packets:
            self.send(tos)

            def left():
                return [each for each in packets.sent() if each.destination == TO and each.interface in WAYS]

            try:
                [found, *_] = eventually("a packet that leaves the router", left, within=2)
            except ExpectationFailed:
                return "nothing"
        way = WAYS[found.interface]
        address = recorded(found.frame.data[14:]) if self.packet.startswith("forwarded,") else ""
        if how == ONE_DEVICE:
            way = address if address in SOURCES else side_of(found.source) if not address else way
        return way + (f", recorded {address}" if address else "")


def recorded(data):
    """Whose address is in the option."""
    at = 23 if data[20] == RECORD_ROUTE else 24
    return side_of(socket.inet_ntoa(data[at:at + 4]))


def side_of(address):
    sides = {**SOURCES, "the client's side": CLIENTS_SIDE}
    return next((way for way, source in sides.items() if source == address), address)


@pytest.mark.table(TABLES)
@pytest.mark.parametrize("row", TABLES.rows)
def test_tos_selects_the_route_whatever_the_ecn_bits_are(net, row, table):
    """Of a packet of this origin."""
    sender = ByTos(net, row)
    how = ""
    for column in table:
        if CELLS[column][0] != how:
            if how:
                routes.carry_out(sender.router.namespace, sender.requests(how, "delete"))
            how = CELLS[column][0]
            routes.carry_out(sender.router.namespace, sender.requests(how, "add"))
        table.saw(sender.outcome(*CELLS[column]))
