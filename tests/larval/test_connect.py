"""TCP connect() without an SA: what it returns, when, and when the connection is established."""

import socket
import struct
import threading

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch, tcp_info, timer_slack
from netns.attempt import errno_name, refused
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)

# (larval_drop, seconds until the SA is added, timers until the connection is ESTABLISHED)
ARRIVALS = [
    (1, 0, (1,)),               # the first SYN retransmission, after 1 s
    (1, 2, (1, 2)),
    (0, 0, (0.1,)),             # the next hold timer
    (0, 0.5, (0.1, 0.2, 0.4)),
    (0, 2, (0.1, 0.2, 0.4, 0.8, 1.6)),
]


@pytest.mark.parametrize("heard", [False, True], ids=("no key manager", "key manager"))
@pytest.mark.parametrize("drop", [0, 1])
def test_nonblocking_connect_without_sa_returns_einprogress_at_once(peers, larval_drop, measure, drop, heard):
    """EINPROGRESS, whether the SYN is dropped or held (connect(2)): with larval_drop=0 it once slept until the SA was
    added."""
    larval_drop(drop)
    peers.add_policy(socket.SOCK_STREAM)
    manager = xfrm.KeyManager(peers.client) if heard else None
    conn = peers.tcp_client()

    with peers.client.capture("tcp") as packets, stopwatch() as took:
        error = conn.connect_ex(peers.target)

    assert errno_name(error) == "EINPROGRESS"
    assert measure(f"larval.connect_nonblocking.drop_{drop}", took.seconds, "s", timer_slack(0)) == approx_timer(0)
    assert tcp_info(conn).state == "SYN_SENT"
    assert packets.packets() == []
    # The lookup did miss the SA: XfrmOutNoStates counts it if the SYN is dropped, and the key manager got an ACQUIRE.
    missed = measure(f"larval.no_states_per_connect.drop_{drop}", peers.client.counter("XfrmOutNoStates"), "lookups")
    assert (missed > 0) == bool(drop)
    assert manager is None or manager.acquires() != []


@pytest.mark.parametrize("drop", [0, 1])
def test_blocking_connect_without_sa_fails_with_etimedout_after_syn_retries(peers, larval_drop, clock, measure, drop):
    """A dropped or held SYN is an unanswered SYN: with one retry, ETIMEDOUT after 1 + 2 s (tcp(7))."""
    larval_drop(drop)
    peers.client.pin({"net.ipv4.tcp_syn_retries": 1})
    peers.add_policy(socket.SOCK_STREAM)
    conn = peers.client.socket(peers.family)

    clock.align(2)
    with stopwatch() as took, refused("ETIMEDOUT", "connect() without an SA"):
        conn.connect(peers.target)

    assert measure(f"larval.connect_timeout.drop_{drop}", took.seconds, "s", timer_slack(1, 2)) == approx_timer(1, 2)


@pytest.mark.parametrize("drop", [0, 1])
def test_so_sndtimeo_ends_a_blocking_connect_without_sa(peers, larval_drop, drop):
    """SO_SNDTIMEO of 0.5 s ends the wait with EINPROGRESS (socket(7)): the socket waits, not the route lookup."""
    larval_drop(drop)
    peers.add_policy(socket.SOCK_STREAM)
    conn = peers.client.socket(peers.family)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 500_000))

    with stopwatch() as took, refused("EINPROGRESS", "connect() with SO_SNDTIMEO and without an SA"):
        conn.connect(peers.target)

    assert took.seconds == approx_timer(0.5)


@pytest.mark.parametrize("drop, after, timers", ARRIVALS)
def test_nonblocking_connect_completes_after_the_sa_is_added(
    peers, larval_drop, clock, measure, writable, drop, after, timers
):
    """With larval_drop=1 at the next retransmission of the SYN, with 0 when the hold timer next fires, 0.1 s, 0.3 s,
    0.7 s, ... after the SYN (net/xfrm/xfrm_policy.c, XFRM_QUEUE_TMO_MIN)."""
    larval_drop(drop)
    peers.ready()
    peers.add_policy(socket.SOCK_STREAM)
    _listener, conn = peers.tcp_listener(), peers.tcp_client()

    clock.align(2)
    with peers.client.capture() as packets, stopwatch() as took:
        assert errno_name(conn.connect_ex(peers.target)) == "EINPROGRESS"
        clock.sleep(after)
        peers.add_sa()
        assert writable(conn, within=20)

    measured = f"larval.connected.drop_{drop}.sa_after_{after}"
    assert measure(measured, took.seconds, "s", timer_slack(*timers)) == approx_timer(*timers)
    assert tcp_info(conn).state == "ESTABLISHED"
    # One SYN and its SYN-ACK: no second SYN joins a held one, and a dropped SYN is never sent.
    assert [packet.sent for packet in packets if packet.protocol == "esp"][:2] == [True, False]
    assert [packet for packet in packets if packet.protocol == "tcp"] == []


@pytest.mark.parametrize("drop, timers", [(0, (0.1, 0.2)), (1, (1,))])
def test_blocking_connect_succeeds_after_the_sa_is_added(peers, larval_drop, clock, drop, timers):
    """The SA is added after 0.2 s; the application sees only a slow connect()."""
    larval_drop(drop)
    peers.ready()
    peers.add_policy(socket.SOCK_STREAM)
    _listener, conn = peers.tcp_listener(), peers.client.socket(peers.family)

    clock.align(1)
    key_daemon = threading.Timer(0.2, peers.add_sa)
    key_daemon.start()
    with stopwatch() as took:
        conn.connect(peers.target)
    key_daemon.join()

    assert took.seconds == approx_timer(*timers)
    assert tcp_info(conn).state == "ESTABLISHED"
