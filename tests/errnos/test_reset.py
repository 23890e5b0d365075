"""RSTs for an established connection: what each side reports, and when (RFC 9293, 3.5.2)."""

import fcntl
import os
import signal
import socket
import struct
import threading

import pytest

from fixtures.topologies import LAN
from netns import eventually, listen, tcp_info, tcp_pair
from netns.attempt import errno_of, events, so_error

pytestmark = pytest.mark.topology(LAN)

# include/uapi/asm-generic/fcntl.h and siginfo.h
F_SETSIG, F_SETOWN_EX, F_OWNER_TID = 10, 15, 0
POLL_ERR = 4
SIGNAL = signal.SIGRTMIN + 1
ABORT = struct.pack("=ii", 1, 0)


def abort(sock):
    """Close with an RST: SO_LINGER on, 0 s (socket(7))."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    sock.close()


def test_accept_returns_a_connection_that_was_already_reset(net, family):
    """Other systems fail accept() with ECONNABORTED. On Linux the first recv() fails with ECONNRESET (accept(2))."""
    client, server = net.nodes("client", "server")
    listener, conn = listen(server, family), client.socket(family)
    conn.connect(listener.getsockname()[:2])
    abort(conn)

    listener.settimeout(5)
    accepted = server.adopt(listener.accept()[0])

    assert errno_of(accepted.recv, 1) == "ECONNRESET"


def test_rst_is_reported_once(net, family):
    """recv() fails with ECONNRESET, then returns EOF; send() fails with EPIPE."""
    conn, peer = tcp_pair(*net.nodes("client", "server"), family)
    abort(peer)

    eventually("epoll events of the client's connection", lambda: events(conn), {"IN", "OUT", "ERR", "HUP", "RDHUP"}, within=5)
    assert errno_of(conn.recv, 1) == "ECONNRESET"
    assert errno_of(conn.recv, 1) == b""
    assert errno_of(conn.send, b"x") == "EPIPE"
    assert events(conn) == {"IN", "OUT", "HUP", "RDHUP"}


def test_rst_sends_the_o_async_signal_with_poll_err(net, family):
    """O_ASYNC with F_SETSIG (fcntl(2)): si_code is POLL_ERR."""
    conn, peer = tcp_pair(*net.nodes("client", "server"), family)
    # Only to this thread, which blocks the signal: delivered to another one it would kill the process.
    fcntl.fcntl(conn, F_SETOWN_EX, struct.pack("=ii", F_OWNER_TID, threading.get_native_id()))
    fcntl.fcntl(conn, F_SETSIG, SIGNAL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [SIGNAL])
    try:
        fcntl.fcntl(conn, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        abort(peer)
        told = set()
        while received := signal.sigtimedwait([SIGNAL], 0.5):
            told.add(received.si_code)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert told == {POLL_ERR}


def test_send_reports_an_rst_once(net, family):
    """The first call fails with ECONNRESET, the second with EPIPE."""
    conn, peer = tcp_pair(*net.nodes("client", "server"), family)
    abort(peer)
    eventually("state of the client's connection", lambda: tcp_info(conn).state, "CLOSE", within=5)

    assert errno_of(conn.send, b"x") == "ECONNRESET"
    assert errno_of(conn.send, b"x") == "EPIPE"


def test_close_with_unread_data_sends_rst(net, family):
    """RST instead of FIN: the sender must learn that data was lost (RFC 1122, 4.2.2.13). recv() fails with ECONNRESET."""
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    conn.send(b"never read")
    eventually("unacknowledged segments of the client's connection", lambda: tcp_info(conn).unacked, 0, within=5)
    with client.capture("tcp") as packets:
        peer.close()
        packets.until("a packet received", lambda seen: seen.received(), within=5)

    assert [packet.flags for packet in packets] == ["RA"]
    assert errno_of(conn.recv, 1) == "ECONNRESET"


def test_data_received_before_an_rst_can_be_read(net, family):
    """Linux keeps acknowledged data: recv() returns it, then fails with ECONNRESET."""
    conn, peer = tcp_pair(*net.nodes("client", "server"), family)
    peer.send(b"last words")
    abort(peer)
    eventually("state of the client's connection", lambda: tcp_info(conn).state, "CLOSE", within=5)

    assert errno_of(conn.recv, 100) == b"last words"
    assert errno_of(conn.recv, 100) == "ECONNRESET"


def test_rst_in_close_wait_sets_epipe(net, family):
    """After the peer's FIN there is nothing left to receive (tcp_reset())."""
    conn, peer = tcp_pair(*net.nodes("client", "server"), family)
    peer.shutdown(socket.SHUT_WR)
    eventually("state of the client's connection", lambda: tcp_info(conn).state, "CLOSE_WAIT", within=5)
    abort(peer)

    eventually("state of the client's connection", lambda: tcp_info(conn).state, "CLOSE", within=5)
    assert so_error(conn) == "EPIPE"


def test_data_for_a_closed_peer_is_answered_with_rst(net, family):
    """After the peer's orderly close the first send() succeeds and provokes the RST; the second fails with EPIPE."""
    conn, peer = tcp_pair(*net.nodes("client", "server"), family)
    peer.close()
    eventually("state of the client's connection", lambda: tcp_info(conn).state, "CLOSE_WAIT", within=5)

    assert errno_of(conn.send, b"x") == 1
    eventually("state of the client's connection", lambda: tcp_info(conn).state, "CLOSE", within=5)
    assert errno_of(conn.send, b"x") == "EPIPE"
