"""UDP while the SA is missing: sent into nothing, or held."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch

pytestmark = pytest.mark.topology(LAN)


@pytest.mark.parametrize("blocking", [True, False], ids=("blocking", "nonblocking"))
def test_larval_drop_loses_datagrams_in_silence(peers, larval_drop, charged, blocking):
    """Each send succeeds at once and is counted as XfrmOutNoStates; the datagram is gone."""
    larval_drop(1)
    peers.add_policy(socket.SOCK_DGRAM)
    client = peers.udp_client()
    client.setblocking(blocking)

    with peers.client.capture("udp") as packets, stopwatch() as took:
        assert [client.sendto(b"lost", peers.target) for _ in range(10)] == [4] * 10

    assert took.seconds == approx_timer(0)
    assert peers.client.counter("XfrmOutNoStates") == 10
    assert packets.packets() == []
    assert charged(client) == 0


def test_after_larval_drop_the_next_datagram_finds_the_sa(peers, larval_drop):
    """What was sent before the SA never arrives; the first one after it does, as ESP."""
    larval_drop(1)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()
    with peers.client.capture("esp") as packets:
        client.sendto(b"too early", peers.target)
        peers.supply()
        client.sendto(b"in time", peers.target)
        assert server.recv(100) == b"in time"

    assert [packet.spi for packet in packets.sent()] == [peers.SPI_OUT]


def test_connected_socket_without_sa_is_not_told_either(peers, larval_drop, charged):
    """connect() of UDP asks for a route and its SA, finds none, and still succeeds; send() too."""
    larval_drop(1)
    peers.add_policy(socket.SOCK_DGRAM)
    client = peers.udp_client()

    client.connect(peers.target)
    after_connect = peers.client.counter("XfrmOutNoStates")
    assert client.send(b"lost") == 4

    assert after_connect >= 1
    assert peers.client.counter("XfrmOutNoStates") > after_connect
    assert charged(client) == 0


def test_connected_socket_gets_through_once_the_sa_is_there(peers, larval_drop):
    """The route that the socket remembers from before is not used any more (dst_check())."""
    larval_drop(1)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()
    client.connect(peers.target)
    client.send(b"too early")

    peers.supply()
    client.send(b"in time")

    assert server.recv(100) == b"in time"


@pytest.mark.parametrize("blocking", [True, False], ids=("blocking", "nonblocking"))
def test_hold_queue_keeps_datagrams(peers, larval_drop, charged, blocking):
    """With larval_drop=0 a send succeeds at once, the datagram stays charged to its socket, and nothing is counted."""
    larval_drop(0)
    peers.add_policy(socket.SOCK_DGRAM)
    client = peers.udp_client()
    client.setblocking(blocking)

    with peers.client.capture("udp") as packets, stopwatch() as took:
        assert [client.sendto(b"held", peers.target) for _ in range(10)] == [4] * 10

    assert took.seconds == approx_timer(0)
    assert charged(client) >= 10 * len(b"held")
    assert packets.packets() == []
    assert peers.client.counter("XfrmOutNoStates") == 0
