"""UDP without an SA: datagrams are dropped or held."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch

pytestmark = pytest.mark.topology(LAN)


@pytest.mark.parametrize("blocking", [True, False], ids=("blocking", "nonblocking"))
def test_larval_drop_silently_drops_datagrams(peers, larval_drop, charged, blocking):
    """Each send succeeds at once and counts as XfrmOutNoStates; the datagram is gone."""
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


def test_next_datagram_after_a_larval_drop_uses_the_added_sa(peers, larval_drop):
    """A datagram sent before the SA never arrives; the first one after it does, as ESP."""
    larval_drop(1)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()
    with peers.client.capture("esp") as packets:
        client.sendto(b"too early", peers.target)
        peers.add_sa()
        client.sendto(b"in time", peers.target)
        assert server.recv(100) == b"in time"

    assert [packet.spi for packet in packets.sent()] == [peers.SPI_OUT]


def test_larval_drop_returns_no_error_to_a_connected_socket(peers, larval_drop, charged):
    """UDP connect() looks up a route and its SA, finds no SA, and still succeeds; so does send()."""
    larval_drop(1)
    peers.add_policy(socket.SOCK_DGRAM)
    client = peers.udp_client()

    client.connect(peers.target)
    after_connect = peers.client.counter("XfrmOutNoStates")
    assert client.send(b"lost") == 4

    assert after_connect >= 1
    assert peers.client.counter("XfrmOutNoStates") > after_connect
    assert charged(client) == 0


def test_connected_socket_uses_the_sa_once_it_is_added(peers, larval_drop):
    """The socket does not reuse the route that it cached before (dst_check())."""
    larval_drop(1)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()
    client.connect(peers.target)
    client.send(b"too early")

    peers.add_sa()
    client.send(b"in time")

    assert server.recv(100) == b"in time"


@pytest.mark.parametrize("blocking", [True, False], ids=("blocking", "nonblocking"))
def test_send_without_sa_succeeds_and_the_hold_queue_keeps_the_datagram(peers, larval_drop, charged, blocking):
    """larval_drop=0: each send succeeds at once, the datagram stays charged to its socket, and nothing is counted."""
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
