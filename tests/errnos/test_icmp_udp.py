"""ICMP errors for UDP: which sockets report them, and when (RFC 1122, 4.1.3.3; udp(7), ip(7))."""

import socket
import threading

import pytest

from fixtures.icmp_errors import ERRORS, IGNORED, PORT_UNREACHABLE, V4, numbers
from fixtures.topologies import ROUTED
from netns import eventually
from netns.attempt import errno_name, events, refused, so_error
from netns.packets import errqueue, icmp

pytestmark = pytest.mark.topology(ROUTED)


@pytest.fixture
def udp(net, family):
    """udp(connected, recverr): a bound socket of the client, connected to the server's port 9 or not."""
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
    """The router sends an ICMP error that quotes a datagram from this socket to the server's port 9."""
    client, server, router = net.nodes("client", "server", "router")
    quoted = icmp.udp_quote(client.address(family), sock.getsockname()[1], server.address(family), 9)
    icmp.send_error(router, client, kind, code, quoted)


def reported(net, family, sock):
    """SO_ERROR after each ICMP error; epoll must show ERR exactly when it is set."""
    seen = {}
    for kind, code in ERRORS[family]:
        answer(net, family, sock, kind, code)
        woken = "ERR" in events(sock)
        seen[kind, code] = so_error(sock)
        assert woken == bool(seen[kind, code]), f"ICMP type {kind} code {code}: EPOLLERR {woken}, SO_ERROR {seen[kind, code]!r}"
    return seen


def test_connected_udp_socket_reports_only_hard_errors(net, family, udp):
    """Those that are not likely to pass (`fatal` in the kernel's tables)."""
    expected = {each: meaning.errno if meaning.hard else "" for each, meaning in ERRORS[family].items()}
    assert reported(net, family, udp(connected=True)) == expected


def test_unconnected_udp_socket_reports_no_icmp_errors(net, family, udp):
    """It could not tell which datagram failed: RFC 1122 leaves that to sockets that ask for it (IP_RECVERR)."""
    assert reported(net, family, udp(connected=False)) == dict.fromkeys(ERRORS[family], "")


@pytest.mark.parametrize("connected", [True, False], ids=("connected", "unconnected"))
def test_recverr_queues_every_icmp_error(net, family, udp, connected):
    """With errno, origin, type, code, the router as offender and the datagram's destination."""
    sock = udp(connected, recverr=True)
    origin = errqueue.Origin.ICMP if family == V4 else errqueue.Origin.ICMP6
    offender, target = net["router"].address(family, "client"), (net["server"].address(family), 9)
    seen, expected = {}, {}
    for (kind, code), error in numbers(family).items():
        answer(net, family, sock, kind, code)
        queued = errqueue.next_error(sock)
        seen[kind, code] = (errno_name(queued.errno), queued.origin, queued.kind, queued.code, queued.offender,
                            queued.destination)
        expected[kind, code] = (error, origin, kind, code, offender, target)
        # Reading the last queued error also clears SO_ERROR: ip_recv_error().
        assert so_error(sock) == ""

    assert seen == expected


def test_so_error_is_the_errno_of_the_queued_error(net, family, udp):
    """With IP_RECVERR, also for soft errors, before the queue is read."""
    sock = udp(connected=True, recverr=True)
    seen = {}
    for kind, code in ERRORS[family]:
        answer(net, family, sock, kind, code)
        seen[kind, code] = (so_error(sock), errno_name(errqueue.next_error(sock).errno))

    assert seen == {each: (error, error) for each, error in numbers(family).items()}


@pytest.mark.parametrize("family", [V4], ids=["ipv4"])
def test_source_quench_and_unknown_codes_are_not_reported(net, family, udp):
    """Nor are reassembly timeouts (icmp_unreach(), __udp4_lib_err())."""
    sock = udp(connected=True, recverr=True)
    for kind, code in IGNORED[family]:
        answer(net, family, sock, kind, code)

    assert (so_error(sock), errqueue.pending(sock), events(sock)) == ("", None, {"OUT"})


@pytest.mark.parametrize("call", ["send", "recv"])
def test_send_or_recv_reports_a_hard_error_once(net, family, udp, call):
    """The first call fails with ECONNREFUSED. If it is send(), its datagram is not sent, but the next one is (udp(7))."""
    sock = udp(connected=True)
    sock.setblocking(False)
    answer(net, family, sock, *PORT_UNREACHABLE[family])

    with refused("ECONNREFUSED", f"{call}() after the ICMP error"):
        sock.send(b"x") if call == "send" else sock.recv(1)
    with net["client"].capture("udp") as packets:
        assert sock.send(b"y") == 1
    assert len(packets.sent()) == 1


def test_hard_error_wakes_a_blocked_recv(net, family, udp):
    """It has no timeout, and fails with ECONNREFUSED."""
    sock, failures = udp(connected=True), []

    def receive():
        try:
            sock.recv(1)
        except OSError as error:
            failures.append(errno_name(error.errno))

    reader = threading.Thread(target=receive, daemon=True)
    reader.start()
    answer(net, family, sock, *PORT_UNREACHABLE[family])
    reader.join(10)

    assert failures == ["ECONNREFUSED"]


def test_closed_udp_port_refuses_a_connected_socket(net, family):
    """The server itself sends port unreachable, not a forged one: ECONNREFUSED."""
    client, server = net.nodes("client", "server")
    sock = client.socket(family, socket.SOCK_DGRAM)
    sock.connect((server.address(family), 9))
    sock.send(b"x")

    eventually("SO_ERROR of the client's socket", lambda: so_error(sock), "ECONNREFUSED", within=5)
