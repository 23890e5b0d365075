"""ACQUIRE and the hold queue together: who asks again for packets that already wait."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)


def test_a_look_into_the_queue_asks_anew_after_an_expiry(peers, larval_drop, clock, charged):
    """The ACQUIRE expires after 1 s, the packet stays held; the look at 1.5 s asks again, without any new packet, and
    the SA that then comes releases it at the look of 3.1 s."""
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
        peers.supply()
        assert server.recv(100) == b"held"

    assert (expire.sequence, expire.hard) == (first.sequence, True)
    assert (again.selector, again.reqid) == (first.selector, first.reqid)
    assert asked_again == approx_timer(0.1, 0.2, 0.4, 0.8)
    assert took.seconds == approx_timer(0.1, 0.2, 0.4, 0.8, 1.6)


def test_a_dropped_syn_asks_anew_after_an_expiry(peers, larval_drop, clock):
    """With larval_drop=1 it is the retransmission of the SYN that asks: at 1 s while the ACQUIRE of 2 s stands it does
    not, at 3 s it does."""
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
def test_connect_asks_before_it_has_a_port(peers, larval_drop, drop):
    """The first lookup of an unbound connect() serves to choose its address, and the port comes after that: the
    ACQUIRE has sport 0 (tcp_v4_connect(), tcp_v6_connect()). A key daemon must not narrow the SA down to it."""
    larval_drop(drop)
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_STREAM)
    conn = peers.tcp_client()

    conn.connect_ex(peers.target)

    acquire = manager.acquires().only()
    assert acquire.selector == xfrm.Selector(peers.here, peers.there, socket.IPPROTO_TCP, 0, peers.PORT)
