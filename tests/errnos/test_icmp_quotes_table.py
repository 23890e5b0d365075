"""What an ICMP error must quote to be believed, and how it may arrive: cut, with options or extension headers, in fragments.

Source: RFC 792 and RFC 1122, 3.2.2: the header and 8 bytes; RFC 4443, 2.4 (d): the protocol behind the extension headers; RFC 4293:
icmpStatsInErrors.
"""

import socket
import struct

import pytest

from fixtures.icmp_errors import PORT_UNREACHABLE, V4, V6
from fixtures.icmp_sockets import BEYOND, Socket, opened, prepare, quote, told
from fixtures.table import Measured, OneOf, Table
from fixtures.topologies import ROUTED
from netns.packets import icmp

pytestmark = pytest.mark.topology(ROUTED)

KINDS = {
    f"{kind}{', connected' if connected else ', not connected'}{', IP_RECVERR' if recverr else ''}": Socket(kind, kind, connected, recverr)
    for kind in ("UDP", "raw", "ping") for connected, recverr in ((True, True), (True, False), (False, True))
}
HEADER = {V4: 20, V6: 40}
MORE = bytes(range(24))
HOP_BY_HOP, ROUTING, FRAGMENT, AH, NONE, DESTINATION = 0, 43, 44, 51, 59, 60
PADDING = b"\1\4" + bytes(4)                # PadN of 6 bytes


def with_options(quoted):
    return bytes([0x46]) + quoted[1:20] + b"\1\1\1\0" + quoted[20:]


def patched(at, data):
    return lambda quoted: quoted[:at] + data + quoted[at + len(data):]


def chained(*headers):
    """Put extension headers before the protocol. Each is its number and its bytes without the first, the next header's number."""
    def build(quoted):
        numbers = [number for number, _body in headers[1:]] + [quoted[6]]
        body = b"".join(bytes([following]) + body for following, (_number, body) in zip(numbers, headers))
        return quoted[:6] + bytes([headers[0][0]]) + quoted[7:40] + body + quoted[40:]
    return build


OPTIONS, ROUTE, AUTHENTICATION = b"\0" + PADDING, b"\0\4\0" + bytes(4), b"\4\0\0" + bytes(20)
FIRST, LATER = struct.pack("!xHI", 1, 7), struct.pack("!xHI", 8, 7)
TOLD, IGNORED, CORRUPT = "told", "nothing, InErrors +1", "nothing, InErrors +1, InCsumErrors +1"
UNSAID = Measured("no document says whether this is about the socket's packet")
CUT = {
    "whole": (lambda quoted: quoted + MORE, TOLD), "8 bytes of payload": (lambda quoted: quoted, TOLD),
    "7 bytes of payload": (lambda quoted: quoted[:-1], IGNORED), "no payload": (lambda quoted: quoted[:-8], IGNORED),
    "header cut": (lambda quoted: quoted[:-9], IGNORED), "nothing": (lambda quoted: b"", IGNORED),
    "wrong checksum": (lambda quoted: quoted, CORRUPT), "in fragments": (lambda quoted: quoted + MORE, TOLD),
    "in fragments, last first": (lambda quoted: quoted + MORE, TOLD),
}
QUOTES = {
    V4: {
        **CUT, "with options": (with_options, TOLD), "header length 4": (patched(0, b"\x44"), IGNORED),
        "header length 15, cut": (patched(0, b"\x4f"), IGNORED), "of a first fragment": (patched(6, b"\x20\0"), TOLD),
        "of a later fragment": (patched(6, b"\0\1"), UNSAID), "with a wrong header checksum": (patched(10, b"\xab\xcd"), UNSAID),
        "of TTL 0": (patched(8, b"\0"), TOLD), "of another total length": (patched(2, b"\0\x1c"), TOLD),
    },
    V6: {
        **CUT, "after hop-by-hop options": (chained((HOP_BY_HOP, OPTIONS)), TOLD),
        "after destination options": (chained((DESTINATION, OPTIONS)), TOLD), "after a routing header": (chained((ROUTING, ROUTE)), TOLD),
        "of a first fragment": (chained((FRAGMENT, FIRST)), TOLD), "of a later fragment": (chained((FRAGMENT, LATER)), UNSAID),
        "after an authentication header": (chained((AH, AUTHENTICATION)), TOLD),
        "after four headers": (chained((HOP_BY_HOP, OPTIONS), (DESTINATION, OPTIONS), (ROUTING, ROUTE), (FRAGMENT, FIRST)), TOLD),
        "options cut": (lambda quoted: chained((HOP_BY_HOP, OPTIONS))(quoted)[:44], IGNORED),
        "longer options than quoted": (chained((HOP_BY_HOP, b"\xff" + PADDING)), IGNORED),
        "no next header": (patched(6, bytes([NONE])), OneOf(("nothing", IGNORED), "RFC 8200, 4.7: nothing follows, which may be an error")),
        "of hop limit 0": (patched(7, b"\0"), TOLD), "of another payload length": (patched(4, b"\0\x08"), TOLD),
    },
}
SOURCES = {V4: "RFC 792; RFC 1122, 3.2.2", V6: "RFC 4443, 2.4 (d)"}
TABLES = {family: Table(f"errnos.icmp{name}_quotes", "socket", "quote", SOURCES[family],
                        {row: {column: expected for column, (_build, expected) in QUOTES[family].items()} for row in KINDS})
          for family, name in ((V4, ""), (V6, "v6"))}


class Forger:
    """Sends ICMP errors with a header of its own making."""

    def __init__(self, net, family):
        self.client, self.router = net.nodes("client", "router")
        self.family, self.group = family, "Icmp" if family == V4 else "Icmp6"
        self.source, self.to = self.router.address(family, "client"), self.client.address(family)
        self.raw = self.router.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.number = 0

    def packet(self, payload, fragment=None):
        """`fragment`: offset in bytes and whether more follow."""
        addresses = socket.inet_pton(self.family, self.source) + socket.inet_pton(self.family, self.to)
        offset, more = fragment or (0, False)
        if self.family == V4:
            return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), self.number, more << 13 | offset >> 3, 64, socket.IPPROTO_ICMP, 0) \
                + addresses + payload
        if fragment:
            payload = struct.pack("!BBHI", socket.IPPROTO_ICMPV6, 0, offset | more, self.number) + payload
        return struct.pack("!IHBB", 0x60000000, len(payload), FRAGMENT if fragment else socket.IPPROTO_ICMPV6, 64) + addresses + payload

    def send(self, column, quoted):
        """Returns once the client has counted the message."""
        message = struct.pack("!BBHI", *PORT_UNREACHABLE[self.family], 0, 0) + quoted
        right = icmp.checksum(message) if self.family == V4 else \
            icmp.transport_checksum(self.source, self.to, socket.IPPROTO_ICMPV6, message)
        message = message[:2] + struct.pack("!H", right ^ (0x55 if column == "wrong checksum" else 0)) + message[4:]
        self.number += 1
        packets = [self.packet(message)]
        if column.startswith("in fragments"):
            packets = [self.packet(message[:16], (0, True)), self.packet(message[16:], (16, False))]
        by_type = "IcmpMsg.InType3" if self.family == V4 else "Icmp6.InType1"
        counter = f"{self.group}.InCsumErrors" if column == "wrong checksum" else by_type
        before = self.client.counter(counter)
        for packet in packets[::-1] if column.endswith("last first") else packets:
            self.raw.sendto(packet, (self.to, 0))
        self.client.await_counter(counter, 1, within=5, since=before)

    def errors(self):
        return [self.client.counter(f"{self.group}.{name}") for name in ("InErrors", "InCsumErrors")]


def check(net, family, row, table):
    which, forger = KINDS[row], Forger(net, family)
    prepare(net, family, which)
    # What the socket says of an error that it believes.
    believed = "ECONNREFUSED, queued" if which.recverr else "ECONNREFUSED"
    for number, column in enumerate(table):
        there = BEYOND[family].format(number + 1)
        with opened(net, family, which, there) as sock:
            before = forger.errors()
            forger.send(column, QUOTES[family][column][0](quote(family, which, forger.to, there)))
            seen = told(sock, which, forger.source, PORT_UNREACHABLE[family], there)
            counted = [after - earlier for after, earlier in zip(forger.errors(), before)]
        words = [f"{name} +{count}" for name, count in zip(("InErrors", "InCsumErrors"), counted) if count]
        table.saw(", ".join([TOLD if seen == believed else seen, *words]))


@pytest.mark.table(TABLES[V4])
@pytest.mark.parametrize("row", TABLES[V4].rows)
def test_icmp_error_is_believed_for_what_it_quotes(net, row, table):
    """The header and 8 bytes of what it carries; all else is an error of the message, and counted as one."""
    check(net, V4, row, table)


@pytest.mark.table(TABLES[V6])
@pytest.mark.parametrize("row", TABLES[V6].rows)
def test_icmpv6_error_is_believed_for_what_it_quotes(net, row, table):
    """Likewise, with the protocol behind the extension headers."""
    check(net, V6, row, table)
