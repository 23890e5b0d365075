"""Policies of single sockets (IP_XFRM_POLICY, IPV6_XFRM_POLICY), as key daemons use them."""

import dataclasses
import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch
from netns.attempt import errno_name, refused
from netns.netlink import xfrm

pytestmark = [pytest.mark.topology(LAN), pytest.mark.parametrize("drop", [0, 1])]


@pytest.mark.parametrize("blocking", [True, False], ids=("blocking", "nonblocking"))
def test_connect_without_sa_fails_with_eagain(peers, larval_drop, drop, blocking):
    """EAGAIN at once, whatever larval_drop says: the lookup fails before the SYN could be dropped or held."""
    larval_drop(drop)
    conn = peers.client.socket(peers.family)
    conn.setblocking(blocking)
    xfrm.set_on_socket(conn, peers.policy(socket.SOCK_STREAM))

    with stopwatch() as took:
        error = conn.connect_ex(peers.target)

    assert errno_name(error) == "EAGAIN"
    assert took.seconds == approx_timer(0)


def test_connect_succeeds_after_the_sa_is_added(peers, larval_drop, drop):
    """A second connect() of the same socket uses ESP; that of a socket without the policy is in the clear."""
    larval_drop(drop)
    peers.ready()
    xfrm.delete(peers.server, *peers.answers())
    _listener, conn, other = peers.tcp_listener(), peers.client.socket(peers.family), peers.client.socket(peers.family)
    xfrm.set_on_socket(conn, peers.policy(socket.SOCK_STREAM))
    assert errno_name(conn.connect_ex(peers.target)) == "EAGAIN"

    peers.add_sa()
    with peers.client.capture() as packets:
        conn.connect(peers.target)
        protected = {packet.protocol for packet in packets.sent()} - {"icmpv6", None}
    with peers.client.capture() as packets:
        other.connect(peers.target)
        plain = {packet.protocol for packet in packets.sent()} - {"icmpv6", None}

    assert (protected, plain) == ({"esp"}, {"tcp"})


def test_datagram_without_sa_fails_with_eagain(peers, larval_drop, charged, drop):
    """UDP too: nothing stays charged to the socket."""
    larval_drop(drop)
    client = peers.udp_client()
    xfrm.set_on_socket(client, peers.policy(socket.SOCK_DGRAM))

    with refused("EAGAIN", "sendto() without an SA"):
        client.sendto(b"x", peers.target)

    assert charged(client) == 0


def test_bypass_policy_of_a_socket_lets_the_key_daemon_send_in_the_clear(peers, larval_drop, drop):
    """A socket with a bypass policy reaches the peer while other sockets wait for the SA: so IKE can negotiate it (RFC
    4301, 4.4.1)."""
    larval_drop(drop)
    policy = peers.add_policy(socket.SOCK_DGRAM)
    server, daemon, other = peers.udp_server(), peers.udp_client(), peers.udp_client()
    xfrm.set_on_socket(daemon, dataclasses.replace(policy, template=None))

    with peers.client.capture("udp") as packets:
        other.sendto(b"waits", peers.target)
        daemon.sendto(b"IKE", peers.target)
        data, address = server.recvfrom(100)

    assert (data, address[1]) == (b"IKE", daemon.getsockname()[1])
    assert len(packets.sent()) == 1
