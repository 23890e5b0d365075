"""Which port a socket gets: what is asked for and what is in the way x the protocol."""

import socket
import struct
from contextlib import ExitStack

import pytest

from fixtures.binding import V4, V6, Ask, bound, made
from fixtures.table import LeftOut, Measured, Must, Table
from fixtures.topologies import LAN
from netns.attempt import errno_of

pytestmark = pytest.mark.topology(LAN)

FIRST, LAST, GIVEN = 40000, 40003, 4000
MANY = 1000
IP_BIND_ADDRESS_NO_PORT = 24
ANY = {V4: "0.0.0.0", V6: "::"}
SOURCE = "ip(7); bind(2); Documentation/networking/ip-sysctl.rst, ip_local_port_range and ip_local_reserved_ports"
OF_PING = "no document says what the ports of ping sockets are"


class PortCase:
    """One cell: sockets of the client, which are closed after it."""

    def __init__(self, stack, client, server, family, protocol):
        self.stack, self.client, self.server, self.family, self.protocol = stack, client, server, family, protocol

    def socket(self, protocol=""):
        found = self.stack.enter_context(made(self.client, protocol or self.protocol, Ask(ANY[self.family])))
        # Of a connection nothing is left that would hold its port.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        return found

    def bind(self, port, sock=None, protocol=""):
        """The outcome of bind(), with the port."""
        sock = sock or self.socket(protocol)
        return bound(sock, self.client.address(self.family), port) or self.has(sock)

    def has(self, sock):
        address, port = sock.getsockname()[:2]
        name = {0: "no port", GIVEN: "the given port", 1: "port 1", 65535: "port 65535"}.get(port)
        if not name:
            # A new socket's id follows on that of the last one, which began at random.
            name = "an id" if self.protocol == "ping" else "a port of the range" if FIRST <= port <= LAST else f"port {port}"
        return f"{name}, {'any address' if address == ANY[self.family] else 'its address'}"

    def connect(self, sock):
        return errno_of(sock.connect, (self.server.address(self.family), GIVEN))

    def ranged(self, low=FIRST, high=LAST, reserved=""):
        self.client.pin({"net.ipv4.ip_local_port_range": f"{low} {high}", "net.ipv4.ip_local_reserved_ports": reserved})


def twice(case):
    sock = case.socket()
    case.bind(GIVEN, sock)
    return case.bind(GIVEN + 1, sock)


def after_connect(case):
    sock = case.socket()
    case.connect(sock)
    return case.bind(GIVEN, sock)


def used_up(case):
    for _port in range(FIRST, LAST + 1):
        case.bind(0)
    return case.bind(0)


def reserved(case):
    case.ranged(reserved=f"{FIRST}-{LAST - 1}")
    sock = case.socket()
    found = case.bind(0, sock)
    return "the one that is free" if sock.getsockname()[1] == LAST else found


def reserved_given(case):
    case.ranged(reserved=str(GIVEN))
    return case.bind(GIVEN)


def all_reserved(case):
    case.ranged(reserved=f"{FIRST}-{LAST}")
    return case.bind(0)


def without_port(case):
    sock = case.socket()
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    first = case.bind(0, sock)
    case.connect(sock)
    return f"{first}; connected, {case.has(sock)}"


def shared_by_connect(case):
    """Two sockets on a range of one port, to two destinations."""
    case.ranged(FIRST, FIRST)
    outcomes = []
    for port in (GIVEN, GIVEN + 1):
        sock = case.socket()
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        case.bind(0, sock)
        outcomes.append(errno_of(sock.connect, (case.server.address(case.family), port)) or "connected")
    return " and ".join(outcomes)


def listening(case):
    sock = case.socket()
    return errno_of(sock.listen) or case.has(sock)


def sending(case):
    sock = case.socket()
    sock.sendto(b"\x08\0\0\0\0\0\0\0" if case.family == V4 else b"\x80\0\0\0\0\0\0\0", (case.server.address(case.family), GIVEN))
    return case.has(sock)


def connecting(case):
    sock = case.socket()
    return case.connect(sock) or case.has(sock)


def again(case):
    sock = case.socket()
    case.bind(GIVEN, sock)
    sock.close()
    return case.bind(GIVEN)


def with_other_protocol(case):
    case.bind(GIVEN, protocol="UDP" if case.protocol == "TCP" else "TCP")
    return case.bind(GIVEN)


def many(case):
    case.ranged(20000, 20000 + MANY - 1)
    sockets = [case.socket() for _number in range(MANY)]
    errors = {bound(sock, case.client.address(case.family), 0) for sock in sockets} - {""}
    return f"{len({sock.getsockname()[1] for sock in sockets})} ports{' and '.join(['', *sorted(errors)])}"


RANGE, EXACT, IN_USE = "a port of the range, its address", "the given port, its address", "EADDRINUSE"
NONE_LEFT = Must(IN_USE, "bind(2): all port numbers in the ephemeral port range are in use")
# Column: what happens, and the outcome for TCP and UDP.
CASES = {
    "port 0": (lambda case: case.bind(0), RANGE),
    "port given": (lambda case: case.bind(GIVEN), EXACT),
    "port 1": (lambda case: case.bind(1), "port 1, its address"),
    "port 65535": (lambda case: case.bind(65535), "port 65535, its address"),
    "port in use": (lambda case: (case.bind(GIVEN), case.bind(GIVEN))[1], IN_USE),
    "port of another protocol's socket": (with_other_protocol, EXACT),
    "port of a closed socket": (again, EXACT),
    "bound already": (twice, "EINVAL"),
    "connected already": (after_connect, "EINVAL"),
    "port 0, all in use": (used_up, NONE_LEFT),
    "port 0, all but one reserved": (reserved, "the one that is free"),
    "port 0, all reserved": (all_reserved, NONE_LEFT),
    "reserved port given": (reserved_given, EXACT),
    f"port 0, {MANY} sockets of {MANY} ports": (many, f"{MANY} ports"),
    "port 0 by IP_BIND_ADDRESS_NO_PORT": (without_port, f"no port, its address; connected, {RANGE}"),
    "two destinations by IP_BIND_ADDRESS_NO_PORT": (shared_by_connect, {
        "TCP": "connected and connected", "UDP": Measured("ip(7) speaks of 4-tuples, and does not say that UDP has none")}),
    "by listen()": (listening, {"TCP": "a port of the range, any address", "UDP": "EOPNOTSUPP"}),
    "by connect()": (connecting, RANGE),
    "by sendto()": (sending, {"TCP": LeftOut("TCP needs a connection"), "UDP": "a port of the range, any address"}),
}


def expected(protocol, column):
    _happens, of_ports = CASES[column]
    if protocol == "ping":
        return "EOPNOTSUPP" if column == "by listen()" else Measured(OF_PING)
    return of_ports[protocol] if isinstance(of_ports, dict) else of_ports


TABLE = Table("binding.port", "protocol", "what is asked for", SOURCE, {
    protocol: {column: expected(protocol, column) for column in CASES} for protocol in ("TCP", "UDP", "ping")})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_socket_gets_the_port_that_it_asks_for_or_one_of_the_range(net, family, row, table):
    """Of the range where it asks for none: a port that is neither reserved nor in use."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.ping_group_range": "0 0"})
    for port in (GIVEN, GIVEN + 1):
        listener = server.socket(family)
        listener.bind((server.address(family), port))
        listener.listen()
    for column in table:
        with ExitStack() as stack:
            case = PortCase(stack, client, server, family, row)
            case.ranged()
            table.saw(CASES[column][0](case))
