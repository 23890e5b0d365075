"""A socket whose first packet was held caches the route to the hold queue (xfrm_bundle_ok() in net/xfrm/xfrm_policy.c
accepts a bundle with DST_XFRM_QUEUE as long as the route below it is valid)."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch, timer_slack
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)

# A packet waits for the first hold timer, or not at all on a kernel that looks the SA up again.
ONE_LOOK, NOTHING = approx_timer(0.1), approx_timer(0)


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
def test_cached_hold_queue_route_delays_messages_by_at_most_100_ms(peers, larval_drop, measure, writable, kind):
    """Although the SA exists, each message may take 0.1 s; after an update of the policy none is delayed."""
    larval_drop(0)
    policy, client, server = connected_through_the_queue(peers, kind, writable)

    before = delays(client, server)
    xfrm.update(peers.client, policy)
    after = delays(client, server)

    measure(f"larval.delay_after_queue.{kind.name}", max(before), "s", timer_slack(0.1))
    assert [each for each in before if each not in (ONE_LOOK, NOTHING)] == []
    assert [each for each in after if each != NOTHING] == []


def test_new_udp_socket_finds_the_sa_without_delay(peers, larval_drop, writable):
    """It finds the SA at once, whatever route the first socket has cached."""
    larval_drop(0)
    connected_through_the_queue(peers, socket.SOCK_DGRAM, writable)
    server, client = peers.udp_server(peers.PORT + 1), peers.udp_client()
    peers.add_policy(socket.SOCK_DGRAM, peers.PORT + 1)
    client.connect((peers.there, peers.PORT + 1))

    assert [each for each in delays(client, server) if each != NOTHING] == []
