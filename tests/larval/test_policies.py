"""Held packets when policies change, and policies that must not affect each other."""

import dataclasses
import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, eventually, stopwatch, timer_slack
from netns.attempt import refused
from netns.netlink import xfrm
from netns.observe import slab

pytestmark = pytest.mark.topology(LAN)


def hold(peers, clock):
    """A policy, the client's and the server's socket. One datagram is held for 0.8 s; the hold timer fires in 0.7 s."""
    peers.ready(1, 2)
    policy = peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()
    client.sendto(b"held", peers.target)
    clock.sleep(0.8)
    return policy, client, server


def test_policy_update_sends_held_packets_at_once(peers, larval_drop, clock, measure):
    """xfrm_policy_requeue(): the new policy takes over the queue and processes it without delay."""
    larval_drop(0)
    policy, _client, server = hold(peers, clock)
    peers.add_sa()

    with stopwatch() as took:
        xfrm.update(peers.client, policy)
        assert server.recv(100) == b"held"

    assert measure("larval.released_by_update", took.seconds, "s", timer_slack(0)) == approx_timer(0)


def test_policy_update_to_a_template_with_an_sa_sends_held_packets_with_it(peers, larval_drop, clock):
    """Held for one SA (reqid 1), sent with the other (reqid 2)."""
    larval_drop(0)
    policy, _client, server = hold(peers, clock)
    peers.add_sa(reqid=2)
    other = dataclasses.replace(policy.template, reqid=2)

    with peers.client.capture("esp") as packets, stopwatch() as took:
        xfrm.update(peers.client, dataclasses.replace(policy, template=other))
        assert server.recv(100) == b"held"

    assert took.seconds == approx_timer(0)
    assert [packet.spi for packet in packets.sent()] == [peers.SPI_OUT + 1]


def test_policy_update_without_sa_restarts_the_hold_timer(peers, larval_drop, clock):
    """The packet stays held; the timer fires 0 s, 0.2 s, 0.6 s, ... after the update: its intervals are short again."""
    larval_drop(0)
    policy, _client, server = hold(peers, clock)

    with stopwatch() as took:
        xfrm.update(peers.client, policy)
        clock.sleep(0.1)
        peers.add_sa()
        assert server.recv(100) == b"held"

    # xfrm_policy_requeue() sets the interval to 0.1 s and fires the timer at once; the interval doubles before the next.
    assert took.seconds == approx_timer(0, 0.2)


def test_policy_update_to_block_drops_held_packets(peers, larval_drop, clock, charged):
    """The kernel frees held packets at once; new ones fail with EPERM and are counted."""
    larval_drop(0)
    policy, client, _server = hold(peers, clock)
    assert charged(client) > 0

    xfrm.update(peers.client, dataclasses.replace(policy, template=None, action="block"))
    clock.sleep(0.05)

    assert charged(client) == 0
    blocked = peers.client.counter("XfrmOutPolBlock")
    with refused("EPERM", "sendto() under the blocking policy"):
        client.sendto(b"x", peers.target)
    assert peers.client.counter("XfrmOutPolBlock") == blocked + 1


def test_policy_delete_drops_held_packets(peers, larval_drop, clock, charged):
    """They are freed at once and never sent, neither as ESP nor in the clear; the next datagram passes in the clear."""
    larval_drop(0)
    policy, client, server = hold(peers, clock)
    assert charged(client) > 0

    with peers.client.capture() as packets:
        xfrm.delete(peers.client, policy)
        clock.sleep(0.05)
        assert charged(client) == 0
        peers.add_sa()
        clock.sleep(1)
        client.sendto(b"without a policy", peers.target)
        assert server.recv(100) == b"without a policy"

    assert [packet.protocol for packet in packets.sent() if packet.protocol in ("esp", "udp")] == ["udp"]


def test_each_policy_has_its_own_hold_queue(peers, larval_drop, clock, charged):
    """An SA releases only the packets of its policy; one policy's full queue leaves room in the other's."""
    larval_drop(0)
    peers.ready(1, 2)
    peers.add_policy(socket.SOCK_DGRAM, peers.PORT, reqid=1)
    peers.add_policy(socket.SOCK_DGRAM, peers.PORT + 1, reqid=2)
    first, second = peers.udp_server(), peers.udp_server(peers.PORT + 1)
    clients = peers.udp_client(), peers.udp_client()
    for _ in range(101):
        clients[0].sendto(b"first", peers.target)
    clients[1].sendto(b"second", (peers.there, peers.PORT + 1))

    with peers.client.capture("esp") as packets:
        peers.add_sa(reqid=2)
        assert second.recv(100) == b"second"
        clock.sleep(0.1)
        assert [packet.spi for packet in packets] == [peers.SPI_OUT + 1]
        assert charged(clients[0]) > 0 and charged(clients[1]) == 0
        peers.add_sa(reqid=1)
        assert [first.recv(100) for _ in range(101)] == [b"first"] * 101


def test_policy_with_the_lower_priority_value_wins(peers, larval_drop):
    """Of two policies that match, the one with the lower number applies (ip-xfrm(8)): a second policy without a
    template lets packets pass despite the missing SA."""
    larval_drop(1)
    policy = peers.policy(socket.SOCK_DGRAM)
    xfrm.add(peers.client, dataclasses.replace(policy, priority=10))
    server, client = peers.udp_server(), peers.udp_client()
    client.sendto(b"lost", peers.target)

    everything = xfrm.Selector(peers.here, peers.there)
    xfrm.add(peers.client, xfrm.Policy(everything, priority=5))
    client.sendto(b"in the clear", peers.target)

    assert server.recv(100) == b"in the clear"


@pytest.mark.virtual_clock("counts slab objects of the whole machine, after all RCU callbacks")
def test_socket_policy_is_freed_with_its_socket(peers):
    """A key daemon may open a socket for each exchange, for years."""
    before, count = slab.in_use(slab.unnamed()), 200
    for _ in range(count):
        with peers.client.socket(peers.family, socket.SOCK_DGRAM) as each:
            xfrm.set_on_socket(each, peers.policy(socket.SOCK_DGRAM))

    eventually("slab objects still in use", lambda: slab.grown(before, by=count // 2), {},
               within=20, every=1)
