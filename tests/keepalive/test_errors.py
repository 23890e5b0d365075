"""RST and ICMP errors during keepalive, and the errno that the application gets."""

import errno

import pytest

from fixtures.topologies import LAN
from netns import keepalive, tcp_pair, vanish, wait_for_error
from netns.hosts import firewall

pytestmark = pytest.mark.topology(LAN)


def test_a_rebooted_peer_resets_the_connection(net, family):
    """The peer does not know the connection and answers the probe with RST: ECONNRESET (RFC 9293, 3.5.1)."""
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    keepalive(conn, idle=1, interval=1, count=9)

    vanish(peer)
    with client.capture("tcp") as packets:
        error = wait_for_error(conn, within=20)

    assert error == errno.ECONNRESET
    probe, reset = packets.exactly(2)
    assert (probe.is_probe, reset.flags, reset.seq) == (True, "R", probe.ack)


def test_soft_icmp_error_replaces_etimedout_when_the_probes_are_used_up(net, family):
    """A soft error (RFC 1122, 4.2.3.9) does not end the connection; when the probes are used up the application gets
    EHOSTUNREACH, not ETIMEDOUT."""
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    with firewall.reject(server, client.address(family)) as rejected:
        # The rule rejects the client's ACK of this byte; the peer is gone, so nobody retransmits the byte.
        peer.sendall(b"x")
        vanish(peer)
        assert conn.recv(1) == b"x"
        assert rejected.packets() == 1

        keepalive(conn, idle=1, interval=1, count=1)
        error = wait_for_error(conn, within=20)

    assert error == errno.EHOSTUNREACH


def test_an_icmp_error_about_a_probe_is_ignored(net, family):
    """The ICMP error quotes the probe's sequence number, which lies before the window: it counts as out of window
    (tcp_v4_err(), RFC 5927), and the application gets ETIMEDOUT."""
    client, server = net.nodes("client", "server")
    conn, _peer = tcp_pair(client, server, family)
    with firewall.reject(server, client.address(family)):
        keepalive(conn, idle=1, interval=1, count=1)
        error = wait_for_error(conn, within=20)

    assert error == errno.ETIMEDOUT
    assert client.counter("TcpExt.OutOfWindowIcmps") == 1
