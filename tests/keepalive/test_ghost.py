"""A connection whose peer is gone: without keepalive the kernel never probes it."""

import errno
import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, keepalive, stopwatch, tcp_info, tcp_pair, vanish, wait_for_error
from netns.attempt import refused
from netns.hosts import firewall

pytestmark = pytest.mark.topology(LAN)


def test_no_probe_without_keepalive(net, family):
    """SO_KEEPALIVE 0 (the default: RFC 1122, 4.2.3.6). A second connection proves that probes would be captured."""
    client, server = net.nodes("client", "server")
    ghost, ghosts_peer = tcp_pair(client, server, family)
    witness, witness_peer = tcp_pair(client, server, family)
    keepalive(ghost, idle=1, interval=1, count=1)
    ghost.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    keepalive(witness, idle=2)

    with client.capture("tcp") as packets:
        vanish(ghosts_peer)
        vanish(witness_peer)
        assert wait_for_error(witness, within=20) == errno.ECONNRESET

    assert {packet.sport for packet in packets.sent()} == {witness.getsockname()[1]}
    assert tcp_info(ghost).state == "ESTABLISHED"


@pytest.mark.virtual_clock("waits a day")
def test_connection_without_keepalive_outlives_its_peer_by_a_day(net, clock):
    """An idle connection to a peer that is gone stays ESTABLISHED and sends nothing."""
    client, server = net.nodes("client", "server")
    pairs = [tcp_pair(client, server, family) for family in (socket.AF_INET, socket.AF_INET6)]
    with client.capture("tcp") as packets:
        for _ghost, peer in pairs:
            vanish(peer)
        clock.sleep(86400)

    assert packets.packets() == []
    for ghost, _peer in pairs:
        assert tcp_info(ghost).state == "ESTABLISHED"
        # The path was open all the time, but the peer is gone.
        ghost.sendall(b"x")
        assert wait_for_error(ghost, within=20) == errno.ECONNRESET


def test_no_probe_before_the_connection_is_established(net, family):
    """In SYN_SENT only the SYN is retransmitted (net/ipv4/tcp_timer.c, tcp_keepalive_timer()); the SYN timer ends it
    after 3 s, keepalive would have after 2 s."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.tcp_syn_retries": 1})
    conn = client.socket(family)
    keepalive(conn, idle=1, interval=1, count=1)

    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        with stopwatch() as took, refused("ETIMEDOUT", "connect() to the vanished host"):
            conn.connect((server.address(family), 9))

    assert {packet.flags for packet in packets.sent()} == {"S"}
    # One retransmission after 1 s, the end 2 s later; since 6.5 retransmissions after 1 and 2 s, the end 1 s later.
    assert took.seconds >= approx_timer(1, 1, 1).least
