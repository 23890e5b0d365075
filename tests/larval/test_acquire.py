"""What a key manager is told when an SA is missing (XFRM_MSG_ACQUIRE, XFRM_MSG_EXPIRE), and the larval SA behind it."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch
from netns.netlink import xfrm

pytestmark = [pytest.mark.topology(LAN), pytest.mark.parametrize("drop", [0, 1])]
MAIN = 0                                    # XFRM_POLICY_TYPE_MAIN


def whole_seconds(seconds):
    """xfrm_timer_handler() counts in whole seconds of the wall clock, and may find that one of them is not over yet."""
    return approx_timer(seconds, late=1.5)


def test_acquire_describes_flow_and_template(peers, larval_drop, drop):
    """Addresses, protocol and ports of the packet, the reqid of the policy's template, and that it is no sub-policy
    (include/uapi/linux/xfrm.h)."""
    larval_drop(drop)
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_DGRAM, reqid=7)
    client = peers.udp_client()

    client.sendto(b"x", peers.target)

    acquire = manager.acquires().only()
    assert acquire.selector == xfrm.Selector(
        peers.here, peers.there, socket.IPPROTO_UDP, sport=client.getsockname()[1], dport=peers.PORT
    )
    assert (acquire.source, acquire.destination, acquire.reqid) == (peers.here, peers.there, 7)
    assert (acquire.sequence != 0, acquire.policy_type) == (True, MAIN)


def test_one_acquire_for_all_packets_of_a_missing_sa(peers, larval_drop, drop):
    """While the larval SA stands, neither more datagrams, nor another flow, nor repeated looks into the hold queue ask
    again."""
    larval_drop(drop)
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_DGRAM)
    for client in (peers.udp_client(), peers.udp_client()):
        for _ in range(10):
            client.sendto(b"x", peers.target)

    assert len(manager.acquires()) == 1
    assert peers.sa_count() == 1


def test_each_policy_acquires_its_own_sa(peers, larval_drop, drop):
    """Two policies whose templates differ in reqid: two larval SAs, two ACQUIREs."""
    larval_drop(drop)
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_DGRAM, reqid=1)
    peers.add_policy(socket.SOCK_DGRAM, peers.PORT + 1, reqid=2)
    client = peers.udp_client()
    for _ in range(3):
        client.sendto(b"x", peers.target)
        client.sendto(b"x", (peers.there, peers.PORT + 1))

    assert [(each.reqid, each.selector.dport) for each in manager.acquires()] == [(1, peers.PORT), (2, peers.PORT + 1)]
    assert peers.sa_count() == 2


def test_without_a_key_manager_no_larval_sa_is_left(peers, larval_drop, drop):
    """Nobody to ask, nothing to wait for: the packet's fate is the same, and the SA database stays empty."""
    larval_drop(drop)
    peers.add_policy(socket.SOCK_DGRAM)
    client = peers.udp_client()

    client.sendto(b"x", peers.target)
    unheard = peers.sa_count()
    manager = xfrm.KeyManager(peers.client)
    client.sendto(b"x", peers.target)

    assert unheard == 0
    assert len(manager.acquires()) == 1
    assert peers.sa_count() == 1


def test_unanswered_acquire_expires_and_is_made_anew(peers, larval_drop, measure, drop):
    """After xfrm_acq_expires (2 s here) the larval SA is gone and reported, hard; the next packet asks anew."""
    larval_drop(drop, acq_expires=2)
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_DGRAM)
    client = peers.udp_client()

    with stopwatch() as took:
        client.sendto(b"x", peers.target)
        first, expire = manager.next(within=1), manager.next(within=10)

    assert expire == xfrm.Expire(peers.there, spi=0, reqid=1, sequence=first.sequence, hard=True)
    assert measure(f"larval.acquire_expired.drop_{drop}", took.seconds, "s", tolerance=1) == whole_seconds(2)
    assert peers.sa_count() == 0
    client.sendto(b"x", peers.target)
    again = manager.acquires()[-1]
    assert (again.selector, again.reqid) == (first.selector, 1)
    assert again.sequence != first.sequence


@pytest.mark.virtual_clock("an ACQUIRE stands for 30 s by default")
def test_default_life_of_an_acquire_is_30_seconds(peers, larval_drop, measure, drop):
    """net.core.xfrm_acq_expires (Documentation/networking/xfrm_sysctl.rst)."""
    larval_drop(drop)
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_DGRAM)
    with stopwatch() as took:
        peers.udp_client().sendto(b"x", peers.target)
        acquire, expire = manager.next(within=1), manager.next(within=100)

    assert expire == xfrm.Expire(peers.there, spi=0, reqid=1, sequence=acquire.sequence, hard=True)
    assert measure(f"larval.acquire_expired_default.drop_{drop}", took.seconds, "s", tolerance=1) == whole_seconds(30)


def test_an_sa_that_comes_ends_the_acquire(peers, larval_drop, drop):
    """The SA takes the larval one's place: one SA before and after, and no EXPIRE when its time would have been over;
    that of a second policy, younger, does expire."""
    larval_drop(drop, acq_expires=1)
    peers.ready()
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_DGRAM, reqid=1)
    peers.add_policy(socket.SOCK_DGRAM, peers.PORT + 1, reqid=2)
    client = peers.udp_client()
    before = peers.sa_count()

    client.sendto(b"x", peers.target)
    peers.supply(reqid=1)
    assert peers.sa_count() == before + 1
    client.sendto(b"x", (peers.there, peers.PORT + 1))
    first, second, expire = manager.next(within=1), manager.next(within=1), manager.next(within=10)

    assert [first.reqid, second.reqid] == [1, 2]
    assert expire == xfrm.Expire(peers.there, spi=0, reqid=2, sequence=second.sequence, hard=True)
