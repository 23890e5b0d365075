"""Refused: nobody listens, or nobody has time; and what connect() says of an attempt before (RFC 9293, 3.10.7)."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import eventually, listen, tcp_info, tcp_pair, timer_slack
from netns.attempt import WAYS, attempt, errno_of, events
from netns.hosts import firewall
from netns.packets import segment

pytestmark = pytest.mark.topology(LAN)


@pytest.mark.parametrize("way", WAYS)
def test_a_port_without_a_listener_refuses(net, family, way, measure):
    """RST|ACK to the SYN: ECONNREFUSED at once, after one SYN."""
    client, server = net.nodes("client", "server")
    conn = client.socket(family)
    with client.capture("tcp") as packets:
        outcome = attempt(conn, (server.address(family), 9), way)

    assert outcome.error == "ECONNREFUSED"
    assert measure(f"errno.refused_after.{way}", outcome.seconds, "s", timer_slack(0)) < 0.9
    assert [packet.flags for packet in packets] == ["S", "RA"]


def test_a_second_connect_reports_the_failure_of_the_first(net, family):
    """A nonblocking client may ask by connect() instead of SO_ERROR: ECONNREFUSED, and the socket can be used again."""
    client, server = net.nodes("client", "server")
    conn, listener = client.socket(family), listen(server, family)
    conn.setblocking(False)
    assert errno_of(conn.connect, (server.address(family), 9)) == "EINPROGRESS"
    eventually("whether epoll reports EPOLLERR for the client's connection", lambda: "ERR" in events(conn), True, within=5)

    assert errno_of(conn.connect, listener.getsockname()[:2]) == "ECONNREFUSED"
    assert attempt(conn, listener.getsockname()[:2], "nonblocking").error == ""


def test_connect_after_so_error_reports_an_aborted_attempt(net, family):
    """A client that has asked SO_ERROR has taken the error: the next connect() says ECONNABORTED, once, and the one
    after it makes a new attempt (__inet_stream_connect())."""
    client, server = net.nodes("client", "server")
    conn, listener = client.socket(family), listen(server, family)
    assert attempt(conn, (server.address(family), 9), "nonblocking").error == "ECONNREFUSED"

    assert errno_of(conn.connect, listener.getsockname()[:2]) == "ECONNABORTED"
    assert attempt(conn, listener.getsockname()[:2], "nonblocking").error == ""


def test_connect_says_how_far_it_is(net, family):
    """While the SYN is under way: EALREADY; on a connection: EISCONN (connect(2))."""
    client, server = net.nodes("client", "server")
    connected, _peer = tcp_pair(client, server, family)
    waiting, listener = client.socket(family), listen(server, family)
    waiting.setblocking(False)
    with net["server"].link_down("client"):
        assert errno_of(waiting.connect, listener.getsockname()[:2]) == "EINPROGRESS"
        assert errno_of(waiting.connect, listener.getsockname()[:2]) == "EALREADY"

    assert errno_of(connected.connect, connected.getpeername()[:2]) == "EISCONN"


def test_a_listener_that_closes_resets_what_it_has_not_accepted(net, family):
    """The client is connected by then: ECONNRESET from recv(), not from connect()."""
    client, server = net.nodes("client", "server")
    listener = listen(server, family)
    conn = client.socket(family)
    assert attempt(conn, listener.getsockname()[:2], "blocking").error == ""

    listener.close()

    eventually("state of the client's connection", lambda: tcp_info(conn).state, "CLOSE", within=5)
    assert errno_of(conn.recv, 1) == "ECONNRESET"


def test_an_overflowing_listener_resets_if_told_to(net, family):
    """tcp_abort_on_overflow=1 (ip-sysctl.rst): what would complete a handshake and finds the queue full is answered
    with a reset. The client has connected and gets ECONNRESET after that; with 0 it would not know."""
    client, server = net.nodes("client", "server")
    server.pin({"net.ipv4.tcp_abort_on_overflow": 1})
    listener = listen(server, family, backlog=2)
    # The first data completes a handshake, so that two can be under way at the end of a queue that takes three.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
    conns = [client.socket(family) for _ in range(4)]
    for conn in conns[:2]:
        conn.connect(listener.getsockname()[:2])
        conn.send(b"x")
    for conn in conns[2:]:
        conn.connect(listener.getsockname()[:2])

    for conn in conns[2:]:
        conn.send(b"x")

    expected = ["ESTABLISHED"] * 3 + ["CLOSE"]
    eventually("states of the client's connections", lambda: [tcp_info(conn).state for conn in conns], expected, within=5)
    assert errno_of(conns[-1].recv, 1) == "ECONNRESET"
    assert server.counter("TcpExt.ListenOverflows") == 1


def test_connect_waits_for_the_end_of_a_simultaneous_open(net, family):
    """Two SYNs have crossed (RFC 9293, 3.5): EALREADY until the peer has acknowledged this one; then it is done."""
    client, server = net.nodes("client", "server")
    conn, there = client.socket(family), (server.address(family), 4000)
    conn.setblocking(False)
    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        assert errno_of(conn.connect, there) == "EINPROGRESS"
        packets.until("the client's SYN", lambda seen: seen.sent(), within=5)
        here = conn.getsockname()[:2]
        segment.send(server, there, here, "S", seq=5000)
        eventually("state of the client's connection", lambda: tcp_info(conn).state, "SYN_RECV", within=5)
        assert errno_of(conn.connect, there) == "EALREADY"

        segment.send(server, there, here, "A", seq=5001, ack=packets.sent()[0].tcp.seq + 1)
        eventually("state of the client's connection", lambda: tcp_info(conn).state, "ESTABLISHED", within=5)
        assert errno_of(conn.connect, there) is None
