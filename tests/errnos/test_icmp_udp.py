"""ICMP errors for UDP: who hears of them, and when (RFC 1122, 4.1.3.3; udp(7), ip(7))."""

import socket
import threading

import pytest

from fixtures.icmp_errors import ERRORS, IGNORED, PORT_UNREACHABLE, V4, numbers
from fixtures.topologies import ROUTED
from netns import eventually
from netns.attempt import events, name, refused, so_error
from netns.packets import errqueue, icmp

pytestmark = pytest.mark.topology(ROUTED)


@pytest.fixture
def udp(net, family):
    """udp(connected, recverr): a socket of the client, bound, for port 9 of the server."""
    client, server = net.nodes("client", "server")

    def make(connected, recverr=False):
        sock = client.socket(family, socket.SOCK_DGRAM)
        sock.bind((client.address(family), 0))
        errqueue.receive_errors(sock, recverr)
        if connected:
            sock.connect((server.address(family), 9))
        return sock

    return make


def answer(net, family, sock, kind, code):
    """The router's error about a datagram of this socket to the server's port 9."""
    client, server, router = net.nodes("client", "server", "router")
    quoted = icmp.udp_quote(client.address(family), sock.getsockname()[1], server.address(family), 9)
    icmp.send_error(router, client, kind, code, quoted)


def reported(net, family, sock):
    """What the socket says after each error: SO_ERROR, and whether epoll showed ERR."""
    seen = {}
    for kind, code in ERRORS[family]:
        answer(net, family, sock, kind, code)
        woken = "ERR" in events(sock)
        seen[kind, code] = so_error(sock)
        assert woken == bool(seen[kind, code]), f"{kind}, {code}: epoll and SO_ERROR differ"
    return seen


def test_a_connected_socket_hears_of_hard_errors(net, family, udp):
    """Those that are not likely to pass (`fatal` in the tables); of the others it hears nothing."""
    expected = {each: meaning.errno if meaning.hard else "" for each, meaning in ERRORS[family].items()}
    assert reported(net, family, udp(connected=True)) == expected


def test_an_unconnected_socket_hears_of_nothing(net, family, udp):
    """It would not know which datagram it was: RFC 1122 leaves that to sockets that ask for it (IP_RECVERR)."""
    assert reported(net, family, udp(connected=False)) == dict.fromkeys(ERRORS[family], "")


@pytest.mark.parametrize("connected", [True, False], ids=("connected", "unconnected"))
def test_recverr_reports_and_queues_every_error(net, family, udp, connected):
    """errno, origin, type, code, the router as offender and the datagram's destination: all agree with SO_ERROR."""
    sock = udp(connected, recverr=True)
    origin = errqueue.Origin.ICMP if family == V4 else errqueue.Origin.ICMP6
    offender, target = net["router"].address(family, "client"), (net["server"].address(family), 9)
    seen, expected = {}, {}
    for (kind, code), error in numbers(family).items():
        answer(net, family, sock, kind, code)
        queued = errqueue.next_error(sock)
        seen[kind, code] = (name(queued.errno), queued.origin, queued.kind, queued.code, queued.offender,
                            queued.destination)
        expected[kind, code] = (error, origin, kind, code, offender, target)
        # Reading the last queued error also clears SO_ERROR: ip_recv_error().
        assert so_error(sock) == ""

    assert seen == expected


def test_so_error_is_the_errno_that_is_queued(net, family, udp):
    """With IP_RECVERR soft errors are reported too, before the queue is read."""
    sock = udp(connected=True, recverr=True)
    seen = {}
    for kind, code in ERRORS[family]:
        answer(net, family, sock, kind, code)
        seen[kind, code] = (so_error(sock), name(errqueue.next_error(sock).errno))

    assert seen == {each: (error, error) for each, error in numbers(family).items()}


@pytest.mark.parametrize("family", [V4], ids=["ipv4"])
def test_what_is_no_error_is_reported_to_nobody(net, family, udp):
    """Neither an unknown code nor source quench nor a reassembly that took too long (icmp_unreach(),
    __udp4_lib_err())."""
    sock = udp(connected=True, recverr=True)
    for kind, code in IGNORED[family]:
        answer(net, family, sock, kind, code)

    assert (so_error(sock), errqueue.pending(sock), events(sock)) == ("", None, {"OUT"})


@pytest.mark.parametrize("call", ["send", "recv"])
def test_the_next_call_fails_once(net, family, udp, call):
    """ECONNREFUSED from send() or recv(), whichever comes first; the datagram of that send() is not sent, the one after
    it is (udp(7))."""
    sock = udp(connected=True)
    sock.setblocking(False)
    answer(net, family, sock, *PORT_UNREACHABLE[family])

    with refused("ECONNREFUSED", f"{call}() after the ICMP error"):
        sock.send(b"x") if call == "send" else sock.recv(1)
    with net["client"].capture("udp") as packets:
        assert sock.send(b"y") == 1
    assert len(packets.sent()) == 1


def test_a_blocked_recv_is_woken_by_a_hard_error(net, family, udp):
    """It returns ECONNREFUSED, without a timeout."""
    sock, failures = udp(connected=True), []

    def receive():
        try:
            sock.recv(1)
        except OSError as error:
            failures.append(name(error.errno))

    reader = threading.Thread(target=receive, daemon=True)
    reader.start()
    answer(net, family, sock, *PORT_UNREACHABLE[family])
    reader.join(10)

    assert failures == ["ECONNREFUSED"]


def test_a_closed_port_refuses_a_connected_socket(net, family):
    """The server itself answers port unreachable; nobody had to forge it."""
    client, server = net.nodes("client", "server")
    sock = client.socket(family, socket.SOCK_DGRAM)
    sock.connect((server.address(family), 9))
    sock.send(b"x")

    eventually("SO_ERROR of the client's socket", lambda: so_error(sock), "ECONNREFUSED", within=5)
