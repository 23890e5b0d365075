"""A socket whose first packet was held caches the route to the hold queue (xfrm_bundle_ok() in net/xfrm/xfrm_policy.c
accepts a bundle with DST_XFRM_QUEUE as long as the route below it is valid)."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch, timer_slack
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)

NOTHING = approx_timer(0)


def connected_through_the_queue(peers, kind, writable):
    """The policy and two sockets; the client's connected before the SA was added."""
    peers.ready()
    policy = peers.add_policy(kind)
    if kind == socket.SOCK_DGRAM:
        server, client = peers.udp_server(), peers.udp_client()
        client.connect(peers.target)
        client.send(b"held")
        peers.add_sa()
        assert server.recv(100) == b"held"
        return policy, client, server
    listener, client = peers.tcp_listener(), peers.tcp_client()
    client.connect_ex(peers.target)
    peers.add_sa()
    assert writable(client, within=20)
    return policy, client, peers.server.adopt(listener.accept()[0])


def delays(client, server):
    """The delays of five small messages in seconds."""
    result = []
    for _ in range(5):
        with stopwatch() as took:
            client.send(b"x")
            assert server.recv(100) == b"x"
        result.append(took.seconds)
    return result


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=("tcp", "udp"))
def test_socket_whose_first_packet_was_held_is_not_delayed_once_the_sa_exists(peers, larval_drop, writable, kind):
    """The SA is there: nothing is left to wait for (xfrm_sysctl.rst, xfrm_larval_drop)."""
    larval_drop(0)
    _policy, client, server = connected_through_the_queue(peers, kind, writable)

    assert max(delays(client, server)) == NOTHING


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=("tcp", "udp"))
def test_update_of_the_policy_ends_the_delay_of_a_socket_whose_first_packet_was_held(peers, larval_drop, measure, writable, kind):
    """It makes the cached route invalid (xfrm_bundle_ok()): the next lookup finds the SA. The delay before it is measured."""
    larval_drop(0)
    policy, client, server = connected_through_the_queue(peers, kind, writable)
    measure(f"larval.delay_after_queue.{kind.name}", max(delays(client, server)), "s", timer_slack(0.1))

    xfrm.update(peers.client, policy)

    assert max(delays(client, server)) == NOTHING


def test_new_udp_socket_finds_the_sa_without_delay(peers, larval_drop, writable):
    """It finds the SA at once, whatever route the first socket has cached."""
    larval_drop(0)
    connected_through_the_queue(peers, socket.SOCK_DGRAM, writable)
    server, client = peers.udp_server(peers.PORT + 1), peers.udp_client()
    peers.add_policy(socket.SOCK_DGRAM, peers.PORT + 1)
    client.connect((peers.there, peers.PORT + 1))

    assert max(delays(client, server)) == NOTHING
