"""The hold queue for packets without an SA (larval_drop=0): its timer, its order, its limits."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, eventually, stopwatch, timer_slack
from netns.attempt import errno_name, refused
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)

# XFRM_MAX_QUEUE_LEN in net/xfrm/xfrm_policy.c is 100; the kernel checks for more than that.
MOST = 101
# The hold timer's intervals: the first is XFRM_QUEUE_TMO_MIN, 0.1 s, and each doubles the one before. The last is the
# first of at least XFRM_QUEUE_TMO_MAX, 60 s.
INTERVALS = [0.1 * 2**k for k in range(11)]


def fill_send_buffer(sock, target):
    """One datagram fills the smallest send buffer: the socket is writable again when the kernel frees it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
    sock.sendto(bytes(1200), target)


@pytest.mark.parametrize("after, looks", [(0, 1), (0.2, 2), (0.5, 3), (1, 4), (2, 5), (10, 7)])
def test_held_datagram_leaves_when_the_hold_timer_next_fires(peers, larval_drop, clock, measure, after, looks):
    """0.1 s, 0.3 s, 0.7 s, 1.5 s, 3.1 s, ... after the send; adding the SA does not release the datagram earlier."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()

    clock.align(10)
    with peers.client.capture("esp") as packets, stopwatch() as took:
        client.sendto(b"held", peers.target)
        clock.sleep(after)
        assert packets.packets() == []
        peers.add_sa()
        assert server.recv(100) == b"held"

    timers = INTERVALS[:looks]
    assert measure(f"larval.released.sa_after_{after}", took.seconds, "s", timer_slack(*timers)) \
        == approx_timer(*timers)
    assert [packet.spi for packet in packets.sent()] == [peers.SPI_OUT]


def test_held_datagrams_leave_in_order_without_loss(peers, larval_drop, charged):
    """None is lost or duplicated, each is ESP, and nothing stays charged to the socket."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()
    expected = [b"%d" % number for number in range(20)]

    with peers.client.capture() as packets:
        for data in expected:
            client.sendto(data, peers.target)
        peers.add_sa()
        assert [server.recv(100) for _ in expected] == expected

    assert [packet.spi for packet in packets if packet.protocol == "esp"] == [peers.SPI_OUT] * 20
    assert [packet for packet in packets if packet.protocol == "udp"] == []
    assert charged(client) == 0


@pytest.mark.parametrize("flags", [0, socket.MSG_DONTWAIT], ids=("blocking", "nonblocking"))
def test_send_to_a_full_hold_queue_fails_with_eagain(peers, larval_drop, clock, measure, flags):
    """The 102nd send fails with EAGAIN at once, blocking or not; the 101 datagrams before it arrive with the SA."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()

    clock.align(1)
    sent = 0
    with stopwatch() as took, refused("EAGAIN", "sendto() to a full hold queue"):
        while sent <= 2 * MOST:
            client.sendto(b"%d" % sent, flags, peers.target)
            sent += 1

    assert measure("larval.hold_queue_limit", sent, "packets") == MOST
    assert took.seconds == approx_timer(0)
    peers.add_sa()
    assert [server.recv(100) for _ in range(MOST)] == [b"%d" % number for number in range(MOST)]
    client.sendto(b"room again", peers.target)
    assert server.recv(100) == b"room again"


def test_flows_of_one_policy_share_one_hold_queue(peers, larval_drop):
    """The limit counts packets of all sockets: when one has filled the queue, the first send of another gets EAGAIN."""
    larval_drop(0)
    peers.add_policy(socket.SOCK_DGRAM)
    first, second = peers.udp_client(), peers.udp_client()
    for _ in range(MOST):
        first.sendto(b"x", peers.target)

    with refused("EAGAIN", "sendto() by the second socket to a full hold queue"):
        second.sendto(b"x", peers.target)


def test_tcp_treats_a_full_hold_queue_as_a_lost_syn(peers, larval_drop, clock, measure, writable):
    """connect() returns EINPROGRESS, not the queue's EAGAIN; the SYN is retransmitted after 1 s. That SYN may be held
    until the hold timer fires, or find the SA at once (7.2, over IPv6 only)."""
    larval_drop(0)
    peers.ready()
    everything = xfrm.Selector(peers.here, peers.there)
    filler, _listener, conn = peers.udp_client(), peers.tcp_listener(), peers.tcp_client()
    conn.bind((peers.here, 0))
    # Resolve the neighbour before neighbour discovery needs an SA.
    filler.sendto(b"x", peers.target)
    xfrm.add(peers.client, xfrm.Policy(everything, xfrm.Template(peers.here, peers.there)))
    clock.align(1)
    for _ in range(MOST):
        filler.sendto(b"x", peers.target)
    with refused("EAGAIN", "sendto() to a full hold queue"):
        filler.sendto(b"x", peers.target)

    with stopwatch() as took:
        assert errno_name(conn.connect_ex(peers.target)) == "EINPROGRESS"
        peers.add_sa()
        assert writable(conn, within=20)

    assert measure("larval.connected_after_full_queue", took.seconds, "s", timer_slack(1)) \
        in (approx_timer(1, INTERVALS[0]), approx_timer(1))


def test_held_datagrams_stay_charged_to_the_send_buffer(peers, larval_drop, clock, charged, writable):
    """A socket with a full send buffer is not writable until the hold timer finds the SA."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()

    clock.align(1)
    with stopwatch() as took:
        fill_send_buffer(client, peers.target)
        assert not writable(client, within=0.5)
        assert charged(client) >= 1200
        peers.add_sa()
        assert writable(client, within=20)

    assert took.seconds == approx_timer(*INTERVALS[:3])
    assert charged(client) == 0
    assert len(server.recv(2000)) == 1200


@pytest.mark.virtual_clock("waits 204.7 s, until the hold queue is purged")
def test_hold_queue_is_purged_after_204_seconds(peers, larval_drop, clock, measure, charged, writable):
    """The hold timer at 204.7 s, the first after an interval of more than 60 s, purges the queue: an SA added later
    finds nothing to release, and the queue takes new packets."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()

    clock.align(102.4)
    with stopwatch() as took:
        fill_send_buffer(client, peers.target)
        assert writable(client, within=1000)

    assert measure("larval.purged_after", took.seconds, "s", timer_slack(*INTERVALS)) == approx_timer(*INTERVALS)
    assert charged(client) == 0
    client.sendto(b"held anew", peers.target)
    peers.add_sa()
    assert server.recv(2000) == b"held anew"


def sockets_in_use(host):
    """The number of the host's sockets, its capture socket included."""
    return host.counter("sockstat.sockets.used")


def test_held_datagram_is_sent_after_close(peers, larval_drop):
    """The datagram stays in the queue after close(); once it is sent, the socket is freed."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()

    client.sendto(b"last words", peers.target)
    client.close()
    # RCU frees the sockets of earlier requests a little later.
    eventually("sockets in use at client", lambda: sockets_in_use(peers.client), 2, within=5)
    peers.add_sa()

    assert server.recv(100) == b"last words"
    eventually("sockets in use at client", lambda: sockets_in_use(peers.client), 1, within=5)


def test_held_syn_is_sent_after_close(peers, larval_drop):
    """The SYN is sent although its socket is closed; a RST answers the SYN-ACK."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_STREAM)
    _listener, conn = peers.tcp_listener(), peers.tcp_client()
    conn.connect_ex(peers.target)

    with peers.client.capture("esp") as packets:
        conn.close()
        peers.add_sa()
        packets.until("3 packets", lambda seen: len(seen) == 3, within=5)

    assert [packet.sent for packet in packets] == [True, False, True]
    assert peers.client.counter("Tcp.OutRsts") == 1
