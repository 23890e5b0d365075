"""Numbers that a stranger must not guess: unrelated between connections, in range, and still in order where TCP needs an order.

Source: RFC 6528, 3: ISN = M + F(addresses, ports, secret); RFC 7323, 5.4 and 7.1: timestamps with an offset of each connection that only
grow; RFC 6056, 3.3: ephemeral ports; RFC 7739, 5 and RFC 6864: identifications of fragments.
"""

import socket

import pytest

from fixtures.table import LeftOut, Measured, Must, Table
from fixtures.topologies import LAN
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(LAN)

V4 = socket.AF_INET
COUNT, FIRST_PORT, SOURCE = 8, 20_000, 30_000
SYN, SYN_ACK = "S", "SA"
# Of 32 bits: how far apart numbers may be that come from one counter. Eight independent ones are never all this close.
NEAR = {"ISN": 1 << 26, "timestamp": 1 << 20, "port": 256, "identification": 4096}
PORTS = (40_000, 49_999)


class Numbered:
    """The client and the server, with COUNT addresses more; listening where connections must be accepted."""

    def __init__(self, net, family, listening):
        self.client, self.server = net.nodes("client", "server")
        self.family = family
        self.addresses = [self._address(number) for number in range(COUNT)]
        self.client.pin({"net.ipv4.ip_local_port_range": "{} {}".format(*PORTS), "net.ipv4.tcp_timestamps": 1})
        self.port = FIRST_PORT
        self.listening = listening

    def _address(self, number):
        text = f"192.0.2.{100 + number}" if self.family == V4 else f"2001:db8:1::{100 + number:x}"
        self.server.add_address(f"{text}/{24 if self.family == V4 else 64}", peer="client")
        return text

    def targets(self, differing):
        """COUNT targets that differ in their ports, or in their addresses."""
        own = self.server.address(self.family)
        if differing == "ports":
            return [(own, FIRST_PORT + number) for number in range(COUNT)]
        return [(address, FIRST_PORT + 100) for address in self.addresses]

    def open(self, target, source=0):
        """Connect, and close by a reset, so that the pair of addresses is free again."""
        conn = self.client.socket(self.family)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if source:
            conn.bind((self.client.address(self.family), source))
        conn.settimeout(10)
        conn.connect_ex(target)
        conn.close()

    def listeners(self, targets):
        if self.listening:
            for address, port in targets:
                made = self.server.socket(self.family)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((address, port))
                made.listen()

    def segments(self, targets, flags, source=0):
        """The segments with these flags, of one connection to each target."""
        with self.client.capture("tcp") as packets:
            for target in targets:
                self.open(target, source)
            fence(self.client, self.server, self.server.address(self.family))
        return packets.packets().which(f"with the flags {flags}", lambda packet: packet.flags == flags
                                       and FIRST_PORT <= (packet.dport if flags == SYN else packet.sport) < FIRST_PORT + 200)

    def datagrams(self, targets):
        """What the client sends, cut into fragments, one datagram to each target: the identifications."""
        with self.client.capture() as packets:
            with self.client.socket(self.family, socket.SOCK_DGRAM) as sock:
                for target in targets:
                    sock.sendto(bytes(2000), target)
            fence(self.client, self.server, self.server.address(self.family))
        found = packets.packets().which("first fragments", lambda packet: packet.fragment == 0 and packet.sent).some()
        return [packet.ip.id if self.family == V4 else packet.layers["IPv6ExtHdrFragment"].id for packet in found]


def isn(segment):
    return segment.seq


def timestamp(segment):
    return segment.timestamps[0]


def port(segment):
    return segment.sport


# By row: what is read, from which segments, whether the server listens, and its tcp_syncookies.
NUMBERS = {
    "ISN of a SYN": ("ISN", isn, SYN, False, 0), "ISN of a SYN-ACK": ("ISN", isn, SYN_ACK, True, 0),
    "ISN of a SYN-ACK with a cookie": ("ISN", isn, SYN_ACK, True, 2),
    "timestamp of a SYN": ("timestamp", timestamp, SYN, False, 0), "timestamp of a SYN-ACK": ("timestamp", timestamp, SYN_ACK, True, 0),
    "timestamp of a SYN-ACK with a cookie": ("timestamp", timestamp, SYN_ACK, True, 2),
    "port of connect()": ("port", port, SYN, False, 0), "identification of fragments": ("identification", None, None, False, 0),
}


RANDOM = "Documentation/networking/ip-sysctl.rst, tcp_timestamps 1: \"use random offset for each connection\""


def cells(name):
    kind = NUMBERS[name][0]
    row = {"of connections to other ports": "unrelated", "of connections to other addresses": "unrelated",
           "of the same pair, later": "ahead, by less than half of all", "range": "32 bits"}
    if "cookie" in name:
        row["of the same pair, later"] = Measured("a cookie holds no clock that RFC 6528 or RFC 7323 asks for")
    if kind == "timestamp":
        row["of connections to other ports"] = Must("unrelated", RANDOM)
    if kind == "port":
        row.update({"of connections to other ports": Measured("RFC 6056, 3.3: some of its algorithms hash the target's port"),
                    "of the same pair, later": LeftOut("the port is part of the pair"), "range": "in ip_local_port_range"})
    if kind == "identification":
        row.update({"of connections to other ports": Measured("RFC 7739 asks for unrelated ones of different destination addresses"),
                    "of the same pair, later": LeftOut("not of a connection"), "range": "of its field"})
    return row


IDENTIFIERS = Table("tcp.identifiers", "number", "numbers", "RFC 6528, 3; RFC 7323, 5.4; RFC 6056, 3.3; RFC 7739, 5",
                    {name: cells(name) for name in NUMBERS})


def related(values, near):
    """Whether all come from one counter, as far as a stranger can tell: each is close to the one before, or equal to it."""
    distances = [min((after - before) % 2**32, (before - after) % 2**32) for before, after in zip(values, values[1:])]
    if len(set(values)) < len(values) - 1:
        return "equal" if len(set(values)) == 1 else "partly equal"
    return "from one counter" if all(distance < near for distance in distances) else "unrelated"


def numbers(case, name, targets):
    kind, read, flags, *_rest = NUMBERS[name]
    if kind == "identification":
        return case.datagrams(targets)
    return [read(segment) for segment in case.segments(targets, flags).exactly(COUNT)]


def later(case, name):
    """Two connections of one pair of addresses and ports."""
    _kind, read, flags, *_rest = NUMBERS[name]
    target = (case.server.address(case.family), FIRST_PORT + 150)
    case.listeners([target])
    first, second = (read(segment) for segment in case.segments([target] * 2, flags, SOURCE).exactly(2))
    return "ahead, by less than half of all" if 0 <= (second - first) % 2**32 < 2**31 else "behind"


def span(case, name, seen):
    kind = NUMBERS[name][0]
    if kind == "port":
        return "in ip_local_port_range" if all(PORTS[0] <= value <= PORTS[1] for value in seen) else "outside of ip_local_port_range"
    if kind == "identification":
        return "of its field" if all(0 <= value < 2**(16 if case.family == V4 else 32) for value in seen) else "beyond its field"
    return "32 bits" if all(0 <= value < 2**32 for value in seen) and max(seen) >= 2**24 else "fewer bits"


@pytest.mark.table(IDENTIFIERS)
@pytest.mark.parametrize("row", IDENTIFIERS.rows)
def test_number_is_unrelated_between_connections(net, family, row, table):
    """Eight connections that differ in one word: a counter that all share would put them next to each other."""
    kind, _read, _flags, listening, cookies = NUMBERS[row]
    case = Numbered(net, family, listening)
    case.server.pin({"net.ipv4.tcp_syncookies": cookies})
    seen = []
    for column in table:
        if column.startswith("of connections"):
            targets = case.targets(column.rpartition(" ")[2])
            case.listeners(targets)
            values = numbers(case, row, targets)
            seen += values
            table.saw(related(values, NEAR[kind]))
        else:
            table.saw(later(case, row) if column.startswith("of the same") else span(case, row, seen))
