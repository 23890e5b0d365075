"""What each ICMP error does to a TCP connection in each state: every type and code (RFC 1122, 4.2.3.9; RFC 5461; RFC 5927)."""

import select
import socket
import struct

import pytest

from fixtures.icmp_errors import CODES, NO_ERRORS, TOO_BIG, UNSAID, V4, V6, meaning
from fixtures.table import Measured, Must, OneOf, Table
from fixtures.topologies import ROUTED
from netns import eventually, tcp_info, vanish
from netns.attempt import so_error
from netns.packets import errqueue, icmp, pmtu, segment
from netns.traffic.closing import states, time_waits

pytestmark = pytest.mark.topology(ROUTED)

BEYOND = {V4: ("203.0.113.{}", "203.0.113.0/24", "0.0.0.0"), V6: ("2001:db8:ff::{:x}", "2001:db8:ff::/64", "::")}
REMOTE, MTU = 9, 1300
PATH = ", path MTU"
ABORTS, SAVED, PASSED, IGNORED, OUTSIDE, UNKNOWN = "aborts", "saved", "passed", "ignored", "outside", "unknown"
# How the client's end of a connection gets into a state. After "lose", its segments no longer reach the server.
STEPS = {
    "ESTABLISHED": (), "FIN_WAIT1": ("lose", "close"), "FIN_WAIT2": ("close",),
    "CLOSING": ("lose", "close", "peer closes", "peer vanishes"),
    "CLOSE_WAIT": ("peer closes",), "LAST_ACK": ("peer closes", "lose", "close"), "TIME_WAIT": ("close", "peer closes"),
}
SYNCHRONISED = [state for state in STEPS if state != "TIME_WAIT"]
# What must become of an error, by row: the state, and how the quoted sequence number differs from the next one.
ROWS = {
    "SYN_SENT": ABORTS, "SYN_SENT, IP_RECVERR": ABORTS,
    **{state: SAVED for state in SYNCHRONISED}, **{f"{state}, IP_RECVERR": PASSED for state in SYNCHRONISED},
    "TIME_WAIT": IGNORED, "TIME_WAIT, IP_RECVERR": IGNORED, "LISTEN, IP_RECVERR": IGNORED, "CLOSE, IP_RECVERR": IGNORED,
    "SYN_RECV": UNKNOWN,
    **{f"{state}, IP_RECVERR, {what}": OUTSIDE for state in ("SYN_SENT", "ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1")
       for what in ("older", "newer")},
}
OFFSETS = {"older": -5, "newer": 1}
SOURCE = "RFC 1122, 4.2.3.9; ip(7), IP_RECVERR"


def state_of(row):
    return row.partition(",")[0]


def expected(family, row, message):
    fate, found, state = ROWS[row], meaning(family, *message), state_of(row)
    if fate == UNKNOWN:
        return Measured("tcp_req_err() drops some requests silently, since accept() returns no network errors: no document says which")
    if fate in (ABORTS, SAVED, PASSED) and message in UNSAID[family]:
        return Measured(UNSAID[family][message])
    left = "CLOSE" if state == "TIME_WAIT" else state
    if fate == OUTSIDE and message not in NO_ERRORS[family]:
        return measured_if_unsaid(family, message, Must(f"nothing, {left}, OutOfWindowIcmps +1", "RFC 5927, 4.1"))
    if fate == IGNORED or found is None or message == TOO_BIG[family] or message in NO_ERRORS[family]:
        return Must(f"nothing, {left}", "RFC 1122, 3.2.2 and 4.2.3.9; RFC 4443, 2.1; RFC 6633, 5")
    if fate == ABORTS:
        return Must(f"{found.errno} at once, CLOSE", "RFC 5461, 4.1: also soft errors end an attempt in Linux")
    return f"{found.errno} {'at once' if fate == PASSED else 'for the timeout'}, {left}"


def measured_if_unsaid(family, message, otherwise):
    return Measured(UNSAID[family][message]) if message in UNSAID[family] else otherwise


def expected_mtu(row):
    """RFC 1191, 3 and RFC 8201, 4: what is in flight was too big; RFC 5927, 7.2 believes only that."""
    if ROWS[row] == OUTSIDE:
        return Must("1500", "RFC 5927, 7.2")
    if state_of(row) == "SYN_SENT":
        return OneOf((str(MTU), "1500"), "RFC 5927, 7.2 believes no MTU beyond what was sent, and a SYN is smaller")
    if ROWS[row] in (UNKNOWN, IGNORED):
        return Measured("the socket has nothing to send that could be too big")
    return Must(str(MTU), "RFC 1191, 3; RFC 8201, 4")


def cells(family):
    talkative = {"SYN_SENT, IP_RECVERR", "ESTABLISHED, IP_RECVERR", "CLOSE_WAIT, IP_RECVERR"}
    found = {}
    for row in ROWS:
        messages = CODES[family] + (NO_ERRORS[family] if row in talkative else ())
        found[row] = {f"{kind}/{code}": expected(family, row, (kind, code)) for kind, code in messages}
        found[row][f"{TOO_BIG[family][0]}/{TOO_BIG[family][1]}{PATH}"] = expected_mtu(row)
    return found


IPV4 = Table("errnos.icmp_tcp", "connection", "type/code", SOURCE, cells(V4))
IPV6 = Table("errnos.icmpv6_tcp", "connection", "type/code", SOURCE, cells(V6))


class Client:
    """The client's ends of connections to addresses behind the server, each with its own."""

    def __init__(self, net, family, row):
        self.client, self.server, self.router = net.nodes("client", "server", "router")
        self.family, self.state, self.recverr = family, state_of(row), "IP_RECVERR" in row
        self.here = self.client.address(family)
        self.address, self.prefix, anywhere = BEYOND[family]
        self.server.run(["ip", "route", "add", "local", self.prefix, "dev", "lo"])
        self.router.run(["ip", "route", "add", self.prefix, "via", self.server.address(family)])
        self.listener = self.server.socket(family)
        self.listener.bind((anywhere, REMOTE))
        self.listener.listen(128)
        self.number = 0

    def target(self):
        self.number += 1
        return self.address.format(self.number), REMOTE

    def socket(self):
        made = self.client.socket(self.family)
        errqueue.receive_errors(made, self.recverr)
        return made

    def lose(self):
        self.router.run(["ip", "route", "replace", "blackhole", self.prefix])

    def enter(self, conns, peers, step):
        if step == "lose":
            self.lose()
        for peer in peers if step == "peer vanishes" else ():
            vanish(peer)                    # the ACK of its next FIN would clear the saved error
        for conn in conns if step == "close" else peers if step == "peer closes" else ():
            conn.shutdown(socket.SHUT_WR)

    def synchronised(self, count):
        """Connections in the state, each with the sequence number that it would send next, and its address."""
        targets, conns, peers = [self.target() for _ in range(count)], [], []
        with self.client.capture("tcp") as packets:
            for target in targets:
                conns.append(self.socket())
                conns[-1].connect(target)
                peers.append(self.server.adopt(self.listener.accept()[0]))
            names = [conn.getsockname()[1] for conn in conns]
            for step in STEPS[self.state]:
                self.enter(conns, peers, step)
                if step in ("close", "peer closes"):
                    self.await_step(conns, step)
        return [(conn, port, target[0], following(packets, port, target[0]))
                for conn, port, target in zip(conns, names, targets)]

    def await_step(self, conns, step):
        if self.state == "TIME_WAIT" and step == "peer closes":
            eventually("connections of client in TIME_WAIT", lambda: time_waits(self.client), len(conns), within=5)
        else:
            after = {"peer closes": ("CLOSE_WAIT", "CLOSING"), "close": ("FIN_WAIT1", "FIN_WAIT2", "LAST_ACK")}[step]
            wanted = "FIN_WAIT2" if self.state == "TIME_WAIT" else self.state if self.state in after else after[0]
            eventually("states of client's connections", lambda: {tcp_info(conn).state for conn in conns}, {wanted}, within=5, every=0.001)

    def attempts(self, count):
        self.lose()
        made = []
        with self.client.capture("tcp") as packets:
            for target in [self.target() for _ in range(count)]:
                conn = self.socket()
                conn.setblocking(False)
                conn.connect_ex(target)
                made.append((conn, conn.getsockname()[1], target[0]))
            packets.until("a SYN of each", lambda seen: len(seen.sent()) >= count, within=5)
        return [(*each, following(packets, *each[1:])) for each in made]

    def idle(self):
        made = self.socket()
        made.bind((self.here, 0))
        if self.state == "LISTEN":
            made.listen()
        return made

    def requests(self, listener, count):
        """Connection requests whose SYN-ACK is lost."""
        self.lose()
        port = listener.getsockname()[1]
        with self.client.capture("tcp") as packets:
            targets = [self.target() for _ in range(count)]
            for target in targets:
                segment.send(self.server, target, (self.here, port), "S", seq=1)
            packets.until("a SYN-ACK for each", lambda seen: len(seen.sent()) >= count, within=5)
        isn = {packet.destination: packet.seq for packet in packets.sent()}
        return [(listener, port, target[0], isn[target[0]]) for target in targets]

    def for_cells(self, columns):
        """For each column a socket, its port, the address at the other end, and the next sequence number."""
        resizing = [column for column in columns if column.endswith(PATH)]
        if self.state == "SYN_SENT":
            return dict(zip(columns, self.attempts(len(columns))))
        if self.state == "SYN_RECV":
            return dict(zip(columns, self.requests(self.idle_listener(), len(columns))))
        if self.state in ("LISTEN", "CLOSE"):
            sock = self.idle()
            return {column: (sock, sock.getsockname()[1], self.target()[0], 1) for column in columns}
        # An error changes nothing about a connection, except for its path MTU.
        first, second = self.synchronised(2)
        return {column: second if column in resizing else first for column in columns}

    def idle_listener(self):
        made = self.socket()
        made.bind((self.here, 0))
        made.listen(128)
        return made


def following(packets, port, there):
    """The sequence number after all that was sent from the port to this address."""
    last = packets.sent().which(f"from port {port} to {there}", lambda packet: (packet.tcp.sport, packet.destination) == (port, there))[-1]
    return (last.seq + last.length + sum(flag in last.flags for flag in "SF")) % 2**32


def told(sock):
    """SO_ERROR, and whether it was reported at once or is what a later timeout will report; the connection's state."""
    poll = select.poll()
    poll.register(sock, 0)
    at_once = any(events & select.POLLERR for _, events in poll.poll(0))
    error, state = so_error(sock), tcp_info(sock).state
    return f"{error} {'at once' if at_once else 'for the timeout'}, {state}" if error else f"{'POLLERR' if at_once else 'nothing'}, {state}"


def requested(cases):
    return states(cases.client).count("SYN_RECV") if cases.state == "SYN_RECV" else 0


def check(net, family, row, table):
    cases = Client(net, family, row)
    client, sender = cases.client, icmp.Sender(cases.router, cases.client, family)
    of_column = cases.for_cells(table.table.columns(row))
    offset = OFFSETS.get(row.rpartition(", ")[2], 0)
    for column in table:
        sock, port, there, seq = of_column[column]
        kind, code = map(int, column.partition(",")[0].split("/"))
        header = struct.pack("!HHIIBBHHH", port, REMOTE, (seq + offset) % 2**32, 0, 0x50, 0x10, 1000, 0, 0)
        requests, outside = requested(cases), client.counter("TcpExt.OutOfWindowIcmps")
        sender.send(kind, code, icmp.header_quote(cases.here, there, socket.IPPROTO_TCP, header), rest=MTU)
        outside = client.counter("TcpExt.OutOfWindowIcmps") - outside
        if column.endswith(PATH):
            seen = str(pmtu.learned(client, there))
        elif cases.state == "SYN_RECV":
            seen = f"{told(sock)}, {'dropped' if requested(cases) < requests else 'kept'}"
        else:
            seen = told(sock) + (f", OutOfWindowIcmps +{outside}" if outside else "")
        table.saw(seen)
    if cases.state == "TIME_WAIT":
        assert time_waits(client) == 2


@pytest.mark.table(IPV4)
@pytest.mark.parametrize("row", IPV4.rows)
def test_icmp_error_does_to_a_tcp_connection_what_its_state_says(net, row, table):
    """It ends an attempt; a connection goes on, and the error is what the timeout will report, or with IP_RECVERR the next call."""
    check(net, V4, row, table)


@pytest.mark.table(IPV6)
@pytest.mark.parametrize("row", IPV6.rows)
def test_icmpv6_error_does_to_a_tcp_connection_what_its_state_says(net, row, table):
    """As for IPv4, with IPV6_RECVERR."""
    check(net, V6, row, table)
