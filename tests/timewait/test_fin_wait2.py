"""FIN_WAIT2: the peer has acknowledged the FIN and does not close (tcp(7), TCP_LINGER2)."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, deliver, eventually, stopwatch, tcp_info, timer_slack
from netns.attempt import so_error
from netns.traffic.closing import states

pytestmark = pytest.mark.topology(LAN)

FIN_TIMEOUT = "net.ipv4.tcp_fin_timeout"


@pytest.mark.parametrize("sysctl, linger2, timers", [
    (1, None, (1,)), (60, 1, (1,)), (1, 2, (2,)),
    *(pytest.param(*each, marks=pytest.mark.virtual_clock("waits minutes"))
      for each in ((60, None, (60,)), (120, None, (60, 60)), (30, 90, (30, 30)))),
])
def test_orphan_in_fin_wait2_lasts_for_tcp_fin_timeout_or_linger2(service, clock, measure, sysctl, linger2, timers):
    """tcp_fin_timeout, or TCP_LINGER2 if it is set; then no socket is left.

    Above 60 s, TIME_WAIT's length, the kernel waits twice for the excess instead: 90 s last 60 s, only 120 s last
    120 s (tcp_rcv_state_process() and tcp_keepalive_timer() both subtract TCP_TIMEWAIT_LEN).
    """
    service.server.pin({FIN_TIMEOUT: sysctl})
    conn, peer = service.connect()
    if linger2:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, linger2)
    clock.align(60)
    with stopwatch() as took:
        peer.close()
        clock.sleep(sum(timers) - 0.1)
        assert states(service.server) == ["FIN_WAIT2"]
        eventually("states of the server's connections", lambda: states(service.server), [], within=30)

    name = f"timewait.fin_wait2.sysctl_{sysctl}.linger2_{linger2}"
    assert measure(name, took.seconds, "s", timer_slack(*timers)) == approx_timer(*timers)
    assert tcp_info(conn).state == "CLOSE_WAIT"


def half_closed(service):
    """The client's socket, after the server has closed."""
    conn, peer = service.connect()
    peer.close()
    eventually("states of the server's connections", lambda: states(service.server), ["FIN_WAIT2"], within=5)
    return conn


def test_data_for_an_orphan_in_fin_wait2_is_answered_with_rst(service):
    """No application can read it (RFC 1122, 4.2.2.13). The client, in CLOSE_WAIT, gets EPIPE."""
    half = half_closed(service)

    half.sendall(b"late")

    eventually("SO_ERROR of the half-closed connection", lambda: so_error(half), "EPIPE", within=5)
    assert states(service.server) == []


def test_peers_fin_moves_fin_wait2_to_time_wait(service, clock):
    """TIME_WAIT outlives tcp_fin_timeout, here 1 s."""
    service.server.pin({FIN_TIMEOUT: 1})
    half_closed(service).close()
    clock.sleep(1.5)

    assert states(service.server) == ["TIME_WAIT"]


@pytest.mark.virtual_clock("waits 60 s")
def test_time_wait_lasts_60_seconds_from_the_peers_fin(service, clock):
    """TCP_TIMEWAIT_LEN, although FIN_WAIT2 was already a timewait minisock with a timer of 5 s."""
    service.server.pin({FIN_TIMEOUT: 5})
    clock.align(60)
    half_closed(service).close()
    with stopwatch() as took:
        clock.sleep(60 - 0.1)
        assert states(service.server) == ["TIME_WAIT"]
        eventually("states of the server's connections", lambda: states(service.server), [], within=20)

    assert took.seconds == approx_timer(60)


def test_negative_linger2_sends_rst_instead_of_waiting_in_fin_wait2(service):
    """The RST follows the FIN. TCPAbortOnLinger counts it or, if the ACK of the FIN arrives after close() has returned,
    TCPAbortOnData."""
    conn, peer = service.connect()
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, -1)

    with service.server.capture("tcp") as packets:
        peer.close()
        eventually("state of the client's connection", lambda: tcp_info(conn).state, "CLOSE", within=5)

    assert [packet.flags[0] for packet in packets.sent()] == ["F", "R"]
    counters = service.server.counters()
    assert counters["TcpExt.TCPAbortOnLinger"] + counters["TcpExt.TCPAbortOnData"] == 1
    assert states(service.server) == []
    assert conn.recv(1) == b""


@pytest.mark.virtual_clock("waits hours")
def test_half_closed_connection_ignores_tcp_fin_timeout(service, clock):
    """shutdown(SHUT_WR) is not close(): the connection still delivers data after six hours."""
    service.server.pin({FIN_TIMEOUT: 1})
    conn, peer = service.connect()
    peer.shutdown(socket.SHUT_WR)

    clock.sleep(6 * 3600)

    assert (tcp_info(peer).state, tcp_info(conn).state) == ("FIN_WAIT2", "CLOSE_WAIT")
    deliver(conn, peer, 1000)
