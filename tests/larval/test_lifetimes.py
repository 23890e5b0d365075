"""Policies and SAs that end by themselves, and what a key manager is told of it."""

import dataclasses
import socket

import pytest

from fixtures.topologies import LAN
from netns import eventually, stopwatch
from netns.attempt import errno_of
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)


def ready(peers, **limits):
    """An SA with these limits, which a connected socket uses, and the server's socket."""
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    xfrm.add(peers.client, dataclasses.replace(peers.sa(), **limits))
    server, client = peers.udp_server(), peers.udp_client()
    client.connect(peers.target)
    return client, server


def expire(peers, hard):
    return xfrm.Expire(peers.there, peers.SPI_OUT, reqid=1, sequence=0, hard=hard)


def test_a_policy_that_ends_by_itself_binds_no_socket_any_more(peers):
    """Not even a connected one, which had its route with the policy: the next packet leaves in the clear."""
    peers.ready()
    xfrm.add(peers.client, dataclasses.replace(peers.policy(socket.SOCK_DGRAM), seconds=1), peers.sa())
    server, client = peers.udp_server(), peers.udp_client()
    client.connect(peers.target)

    with peers.client.capture() as packets:
        client.send(b"protected")
        assert server.recv(100) == b"protected"
        eventually("outgoing policies of client", lambda: peers.client.run(["ip", "xfrm", "policy", "list", "dir", "out"]), "",
                   within=5, every=0.25)
        client.send(b"in the clear")
        assert server.recv(100) == b"in the clear"

    assert [packet.protocol for packet in packets.sent() if packet.protocol in ("esp", "udp")] == ["esp", "udp"]


@pytest.mark.virtual_clock("seconds are counted exactly")
def test_an_sa_for_so_many_seconds_is_told_of_before_it_ends(peers, measure):
    """A soft EXPIRE after 2 s, in which new keys can be agreed upon, the hard one after 5 s (RFC 4301, 4.4.2.1). The kernel
    counts whole seconds."""
    manager = xfrm.KeyManager(peers.client)
    with stopwatch() as soft:
        client, server = ready(peers, seconds=(2, 5))
        assert manager.next(within=10) == expire(peers, hard=False)
    with stopwatch() as rest:
        client.send(b"still protected")
        assert server.recv(100) == b"still protected"
        assert manager.next(within=10) == expire(peers, hard=True)

    assert measure("larval.sa_soft", soft.seconds, "s", tolerance=1) == pytest.approx(2, abs=1.02)
    assert measure("larval.sa_hard", soft.seconds + rest.seconds, "s", tolerance=1) == pytest.approx(5, abs=1.02)
    assert peers.client.run(["ip", "xfrm", "state", "list", "src", peers.here]) == ""


def test_an_sa_for_so_many_packets_sends_no_more(peers):
    """A soft EXPIRE with the third packet of five, a hard one when a sixth is refused with EINVAL, which is counted."""
    manager = xfrm.KeyManager(peers.client)
    client, server = ready(peers, packets=(2, 5))

    told = []
    for number in range(5):
        client.send(bytes([number]))
        assert server.recv(100) == bytes([number])
        told.append(len(manager.heard()))

    assert (told, errno_of(client.send, b"one more")) == ([0, 0, 1, 1, 1], "EINVAL")
    expected = [expire(peers, hard=False), expire(peers, hard=True)]
    eventually("expiries that client's key manager was told of", manager.expires, expected, within=5)
    assert peers.client.counter("XfrmOutStateExpired") == 1
    assert peers.client.run(["ip", "xfrm", "state", "list", "src", peers.here]) == ""
