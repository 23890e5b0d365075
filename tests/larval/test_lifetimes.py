"""Expiry of policies and SAs, and what the key manager hears of it."""

import dataclasses
import socket

import pytest

from fixtures.topologies import LAN
from netns import eventually, stopwatch
from netns.attempt import errno_of
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)


def ready(peers, **limits):
    """A connected socket that uses an SA with these limits, and the server's socket."""
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    xfrm.add(peers.client, dataclasses.replace(peers.sa(), **limits))
    server, client = peers.udp_server(), peers.udp_client()
    client.connect(peers.target)
    return client, server


def expire(peers, hard):
    return xfrm.Expire(peers.there, peers.SPI_OUT, reqid=1, sequence=0, hard=hard)


def test_connected_socket_sends_in_the_clear_after_its_policy_expired(peers):
    """The socket does not reuse the route that it cached with the policy."""
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


@pytest.mark.virtual_clock("needs exact seconds")
def test_sa_with_time_limits_sends_a_soft_and_a_hard_expire(peers, measure):
    """A soft EXPIRE after 2 s leaves time to rekey; the hard one comes after 5 s (RFC 4301, 4.4.2.1). The kernel counts
    whole seconds."""
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


def test_sa_with_packet_limits_refuses_packets_beyond_the_hard_limit(peers):
    """The third of five packets causes a soft EXPIRE. A sixth fails with EINVAL, causes a hard one, and is counted."""
    manager = xfrm.KeyManager(peers.client)
    client, server = ready(peers, packets=(2, 5))

    told = []
    for number in range(5):
        client.send(bytes([number]))
        assert server.recv(100) == bytes([number])
        told.append(len(manager.messages()))

    assert (told, errno_of(client.send, b"one more")) == ([0, 0, 1, 1, 1], "EINVAL")
    expected = [expire(peers, hard=False), expire(peers, hard=True)]
    eventually("EXPIREs received by client's key manager", manager.expires, expected, within=5)
    assert peers.client.counter("XfrmOutStateExpired") == 1
    assert peers.client.run(["ip", "xfrm", "state", "list", "src", peers.here]) == ""
