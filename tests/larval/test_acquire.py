"""What the kernel tells a key manager about a missing SA (XFRM_MSG_ACQUIRE, XFRM_MSG_EXPIRE), and the larval SA."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch
from netns.netlink import xfrm

pytestmark = [pytest.mark.topology(LAN), pytest.mark.parametrize("drop", [0, 1])]
MAIN = 0                                    # XFRM_POLICY_TYPE_MAIN


def whole_seconds(seconds):
    """xfrm_timer_handler() counts whole seconds of the wall clock; it waits again if a second is not over yet."""
    return approx_timer(seconds, late=1.5)


def test_acquire_describes_flow_and_template(peers, larval_drop, drop):
    """The ACQUIRE has the packet's addresses, protocol and ports, the template's reqid, and the main policy type
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


def test_all_packets_that_miss_the_same_sa_cause_one_acquire(peers, larval_drop, drop):
    """While the larval SA exists, neither more datagrams nor a second flow cause another ACQUIRE."""
    larval_drop(drop)
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_DGRAM)
    for client in (peers.udp_client(), peers.udp_client()):
        for _ in range(10):
            client.sendto(b"x", peers.target)

    assert len(manager.acquires()) == 1
    assert peers.sa_count() == 1


def test_each_policy_acquires_its_own_sa(peers, larval_drop, drop):
    """Two policies whose templates differ in reqid cause two larval SAs and two ACQUIREs."""
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
    """The SAD stays empty until a key manager listens; then a packet causes an ACQUIRE and a larval SA."""
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


def test_packet_after_an_expired_acquire_causes_a_new_acquire(peers, larval_drop, measure, drop):
    """After xfrm_acq_expires (2 s here) the larval SA ends with a hard EXPIRE; the next packet causes an ACQUIRE."""
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


@pytest.mark.virtual_clock("waits 30 s, the default xfrm_acq_expires")
def test_larval_sa_expires_after_30_seconds_by_default(peers, larval_drop, measure, drop):
    """net.core.xfrm_acq_expires (Documentation/networking/xfrm_sysctl.rst)."""
    larval_drop(drop)
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_DGRAM)
    with stopwatch() as took:
        peers.udp_client().sendto(b"x", peers.target)
        acquire, expire = manager.next(within=1), manager.next(within=100)

    assert expire == xfrm.Expire(peers.there, spi=0, reqid=1, sequence=acquire.sequence, hard=True)
    assert measure(f"larval.acquire_expired_default.drop_{drop}", took.seconds, "s", tolerance=1) == whole_seconds(30)


def test_added_sa_replaces_the_larval_sa_without_an_expire(peers, larval_drop, drop):
    """The SAD has one SA more than before the ACQUIRE, and no EXPIRE for it follows. The younger larval SA of a second
    policy does expire."""
    larval_drop(drop, acq_expires=1)
    peers.ready()
    manager = xfrm.KeyManager(peers.client)
    peers.add_policy(socket.SOCK_DGRAM, reqid=1)
    peers.add_policy(socket.SOCK_DGRAM, peers.PORT + 1, reqid=2)
    client = peers.udp_client()
    before = peers.sa_count()

    client.sendto(b"x", peers.target)
    peers.add_sa(reqid=1)
    assert peers.sa_count() == before + 1
    client.sendto(b"x", (peers.there, peers.PORT + 1))
    first, second, expire = manager.next(within=1), manager.next(within=1), manager.next(within=10)

    assert [first.reqid, second.reqid] == [1, 2]
    assert expire == xfrm.Expire(peers.there, spi=0, reqid=2, sequence=second.sequence, hard=True)
