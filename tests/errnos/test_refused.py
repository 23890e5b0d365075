"""Refused connections: no listener, or a full accept queue; and the errno of a repeated connect() (RFC 9293, 3.10.7)."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import eventually, listen, tcp_info, tcp_pair, timer_slack
from netns.attempt import WAYS, attempt, errno_of, events
from netns.hosts import firewall
from netns.packets import segment

pytestmark = pytest.mark.topology(LAN)


@pytest.mark.parametrize("way", WAYS)
def test_connect_to_a_port_without_a_listener_is_refused(net, family, way, measure):
    """The first SYN gets RST|ACK: ECONNREFUSED at once."""
    client, server = net.nodes("client", "server")
    conn = client.socket(family)
    with client.capture("tcp") as packets:
        outcome = attempt(conn, (server.address(family), 9), way)

    assert outcome.error == "ECONNREFUSED"
    assert measure(f"errno.refused_after.{way}", outcome.seconds, "s", timer_slack(0)) < 0.9
    assert [packet.flags for packet in packets] == ["S", "RA"]


def test_second_connect_reports_the_failure_of_the_first(net, family):
    """A nonblocking client may call connect() instead of reading SO_ERROR: ECONNREFUSED, and the socket is reusable."""
    client, server = net.nodes("client", "server")
    conn, listener = client.socket(family), listen(server, family)
    conn.setblocking(False)
    assert errno_of(conn.connect, (server.address(family), 9)) == "EINPROGRESS"
    eventually("EPOLLERR on the client's connection", lambda: "ERR" in events(conn), True, within=5)

    assert errno_of(conn.connect, listener.getsockname()[:2]) == "ECONNREFUSED"
    assert attempt(conn, listener.getsockname()[:2], "nonblocking").error == ""


def test_connect_after_so_error_fails_once_with_econnaborted(net, family):
    """Reading SO_ERROR clears the error: the next connect() fails with ECONNABORTED, and the one after it makes a new
    attempt (__inet_stream_connect())."""
    client, server = net.nodes("client", "server")
    conn, listener = client.socket(family), listen(server, family)
    assert attempt(conn, (server.address(family), 9), "nonblocking").error == "ECONNREFUSED"

    assert errno_of(conn.connect, listener.getsockname()[:2]) == "ECONNABORTED"
    assert attempt(conn, listener.getsockname()[:2], "nonblocking").error == ""


def test_repeated_connect_fails_with_ealready_or_eisconn(net, family):
    """EALREADY in SYN_SENT, EISCONN on a connection (connect(2))."""
    client, server = net.nodes("client", "server")
    connected, _peer = tcp_pair(client, server, family)
    waiting, listener = client.socket(family), listen(server, family)
    waiting.setblocking(False)
    with net["server"].link_down("client"):
        assert errno_of(waiting.connect, listener.getsockname()[:2]) == "EINPROGRESS"
        assert errno_of(waiting.connect, listener.getsockname()[:2]) == "EALREADY"

    assert errno_of(connected.connect, connected.getpeername()[:2]) == "EISCONN"


def test_closing_listener_resets_connections_that_it_has_not_accepted(net, family):
    """connect() has succeeded by then: recv() fails with ECONNRESET."""
    client, server = net.nodes("client", "server")
    listener = listen(server, family)
    conn = client.socket(family)
    assert attempt(conn, listener.getsockname()[:2], "blocking").error == ""

    listener.close()

    eventually("state of the client's connection", lambda: tcp_info(conn).state, "CLOSE", within=5)
    assert errno_of(conn.recv, 1) == "ECONNRESET"


def test_full_accept_queue_sends_rst_with_tcp_abort_on_overflow(net, family):
    """tcp_abort_on_overflow=1 (ip-sysctl.rst): the segment that would complete the handshake gets an RST. The client's
    connect() has succeeded by then: recv() fails with ECONNRESET."""
    client, server = net.nodes("client", "server")
    server.pin({"net.ipv4.tcp_abort_on_overflow": 1})
    listener = listen(server, family, backlog=2)
    # Data completes each handshake: two can be pending while the accept queue, which takes three, has one place left.
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


def test_connect_returns_ealready_until_a_simultaneous_open_completes(net, family):
    """SYNs have crossed (RFC 9293, 3.5): EALREADY in SYN_RECV, success once the peer has acknowledged the SYN."""
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
