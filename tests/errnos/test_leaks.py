"""What failed is gone from the kernel's memory as well."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import errqueue, eventually, listen, tcp_pair, vanish
from netns.attempt import errno_of, so_error

pytestmark = pytest.mark.topology(LAN)
TIMES = 20


def test_refused_connections_are_given_back(net, family, given_back):
    """Attempts that a closed port has answered with a reset."""
    client, server = net.nodes("client", "server")

    def use():
        for _ in range(TIMES):
            with client.socket(family) as conn:
                assert conn.connect_ex((server.address(family), 9)) != 0

    given_back(use, TIMES)


def test_errors_that_nobody_reads_are_given_back(net, family, given_back):
    """ICMP errors in the queue of a socket that is closed (sock_queue_err_skb(), inet_sock_destruct())."""
    client, server = net.nodes("client", "server")

    def use():
        for _ in range(TIMES):
            with client.socket(family, socket.SOCK_DGRAM) as sock:
                errqueue.receive_errors(sock)
                sock.connect((server.address(family), 9))
                sock.send(b"x")
                eventually(lambda: so_error(sock), "ECONNREFUSED", within=5)

    given_back(use, TIMES)


def test_errors_that_are_read_are_given_back(net, family, given_back):
    """With the errors of a connection attempt too (ip_recv_error())."""
    client, server = net.nodes("client", "server")
    sock = client.socket(family, socket.SOCK_DGRAM)
    errqueue.receive_errors(sock)
    sock.connect((server.address(family), 9))

    def use():
        for _ in range(TIMES):
            errno_of(sock.send, b"x")
            assert errqueue.next_error(sock)
            so_error(sock)

    given_back(use, TIMES)


def test_connections_that_were_reset_are_given_back(net, family, given_back):
    """With the data that waits on both sides."""
    client, server = net.nodes("client", "server")

    def use():
        for _ in range(TIMES):
            conn, peer = tcp_pair(client, server, family)
            conn.send(b"data")
            peer.send(b"data")
            peer.close()
            eventually(lambda: so_error(conn), "ECONNRESET", within=5)
            conn.close()

    given_back(use, TIMES)


def test_a_listeners_unaccepted_connections_are_given_back(net, family, given_back):
    """The listener closes and resets them (inet_csk_listen_stop())."""
    client, server = net.nodes("client", "server")

    def use():
        listener = listen(server, family)
        conns = [client.socket(family) for _ in range(TIMES)]
        for conn in conns:
            conn.connect(listener.getsockname()[:2])
        listener.close()
        for conn in conns:
            vanish(conn)

    given_back(use, TIMES)
