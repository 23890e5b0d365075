"""When the hold timer or a retransmission causes another ACQUIRE, and the port in it."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)


def test_hold_timer_causes_a_new_acquire_after_the_first_expired(peers, larval_drop, clock, charged):
    """The ACQUIRE expires after 1 s, the packet stays held. The hold timer at 1.5 s causes a new ACQUIRE without a new
    packet; the one at 3.1 s finds the SA and releases the packet."""
    larval_drop(0, acq_expires=1)
    peers.ready()
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()

    clock.align(2)
    with stopwatch() as took:
        client.sendto(b"held", peers.target)
        first, expire, again = manager.next(within=1), manager.next(within=5), manager.next(within=5)
        asked_again = took.seconds
        assert charged(client) > 0
        peers.add_sa()
        assert server.recv(100) == b"held"

    assert (expire.sequence, expire.hard) == (first.sequence, True)
    assert (again.selector, again.reqid) == (first.selector, first.reqid)
    assert asked_again == approx_timer(0.1, 0.2, 0.4, 0.8)
    assert took.seconds == approx_timer(0.1, 0.2, 0.4, 0.8, 1.6)


def test_syn_retransmission_causes_a_new_acquire_after_the_first_expired(peers, larval_drop, clock):
    """larval_drop=1: the retransmission at 1 s causes none, as the first ACQUIRE is valid for 2 s; that at 3 s does."""
    larval_drop(1, acq_expires=2)
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_STREAM)
    conn = peers.tcp_client()

    clock.align(2)
    with stopwatch() as took:
        conn.connect_ex(peers.target)
        first, expire, again = manager.next(within=1), manager.next(within=5), manager.next(within=5)

    assert (expire.sequence, expire.hard) == (first.sequence, True)
    assert isinstance(again, xfrm.Acquire) and again.selector.sport == conn.getsockname()[1]
    assert took.seconds == approx_timer(1, 2)


@pytest.mark.parametrize("drop", [0, 1])
def test_connect_of_an_unbound_socket_causes_an_acquire_with_sport_0(peers, larval_drop, drop):
    """The first route lookup of an unbound connect() selects its address; the port is chosen after that
    (tcp_v4_connect(), tcp_v6_connect()). A key daemon must not narrow the SA to port 0."""
    larval_drop(drop)
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_STREAM)
    conn = peers.tcp_client()

    conn.connect_ex(peers.target)

    acquire = manager.acquires().only()
    assert acquire.selector == xfrm.Selector(peers.here, peers.there, socket.IPPROTO_TCP, 0, peers.PORT)
