"""A connection whose peer is gone, and nobody asks: without keepalive the kernel never does."""

import errno
import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, keepalive, stopwatch, tcp_info, tcp_pair, vanish, wait_for_error
from netns.attempt import refused
from netns.hosts import firewall

pytestmark = pytest.mark.topology(LAN)


def test_no_probe_without_keepalive(net, family):
    """RFC 1122, 4.2.3.6: keepalive must default to off. A second connection proves that probes would have been seen."""
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


@pytest.mark.virtual_clock("a day has to pass")
def test_ghost_connection_outlives_a_day(net, clock):
    """Without keepalive an idle connection to a peer that no longer exists stays ESTABLISHED, however long."""
    client, server = net.nodes("client", "server")
    pairs = [tcp_pair(client, server, family) for family in (socket.AF_INET, socket.AF_INET6)]
    with client.capture("tcp") as packets:
        for _ghost, peer in pairs:
            vanish(peer)
        clock.sleep(86400)

    assert packets.packets() == []
    for ghost, _peer in pairs:
        assert tcp_info(ghost).state == "ESTABLISHED"
        # The way to the peer was open all the time, and nobody was there.
        ghost.sendall(b"x")
        assert wait_for_error(ghost, within=20) == errno.ECONNRESET


def test_no_probe_before_the_connection_stands(net, family):
    """In SYN_SENT only the SYN is repeated (net/ipv4/tcp_timer.c, tcp_keepalive_timer()); its own timer ends it after
    3 s, where keepalive would have after 2 s."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.tcp_syn_retries": 1})
    conn = client.socket(family)
    keepalive(conn, idle=1, interval=1, count=1)

    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        with stopwatch() as took, refused("ETIMEDOUT", "connect() to the host that is gone"):
            conn.connect((server.address(family), 9))

    assert {packet.flags for packet in packets.sent()} == {"S"}
    # One repetition after 1 s and the end 2 s later; from 6.5 on repetitions after 1 s and 2 s and the end 1 s later.
    assert took.seconds >= approx_timer(1, 1, 1).least
