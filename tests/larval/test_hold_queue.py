"""The queue in which packets wait for their SA (larval_drop=0): its clock, its order, its limits."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, eventually, stopwatch, timer_slack
from netns.attempt import name, refused
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)

# XFRM_MAX_QUEUE_LEN in net/xfrm/xfrm_policy.c is 100, and the test is for more than that.
MOST = 101
# The looks into the queue: XFRM_QUEUE_TMO_MIN is 0.1 s, each interval twice the one before; the one after which no
# other is due is that of at least XFRM_QUEUE_TMO_MAX, 60 s.
INTERVALS = [0.1 * 2**k for k in range(11)]


def fill_send_buffer(sock, target):
    """One datagram that leaves no room in the smallest send buffer: writable again means that the kernel freed it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
    sock.sendto(bytes(1200), target)


@pytest.mark.parametrize("after, looks", [(0, 1), (0.2, 2), (0.5, 3), (1, 4), (2, 5), (10, 7)])
def test_held_datagram_leaves_at_the_next_look(peers, larval_drop, clock, measure, after, looks):
    """0.1 s, 0.3 s, 0.7 s, 1.5 s, 3.1 s, ... after it was sent; that the SA is there does not make it leave earlier."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()

    clock.align(10)
    with peers.client.capture("esp") as packets, stopwatch() as took:
        client.sendto(b"held", peers.target)
        clock.sleep(after)
        assert packets.packets() == []
        peers.supply()
        assert server.recv(100) == b"held"

    timers = INTERVALS[:looks]
    assert measure(f"larval.released.sa_after_{after}", took.seconds, "s", timer_slack(*timers)) \
        == approx_timer(*timers)
    assert [packet.spi for packet in packets.sent()] == [peers.SPI_OUT]


def test_held_datagrams_all_leave_in_their_order(peers, larval_drop, charged):
    """None is lost, none doubled, each is ESP; afterwards the socket owns no memory any more."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()
    expected = [b"%d" % number for number in range(20)]

    with peers.client.capture() as packets:
        for data in expected:
            client.sendto(data, peers.target)
        peers.supply()
        assert [server.recv(100) for _ in expected] == expected

    assert [packet.spi for packet in packets if packet.protocol == "esp"] == [peers.SPI_OUT] * 20
    assert [packet for packet in packets if packet.protocol == "udp"] == []
    assert charged(client) == 0


@pytest.mark.parametrize("flags", [0, socket.MSG_DONTWAIT], ids=("blocking", "nonblocking"))
def test_full_queue_refuses_with_eagain(peers, larval_drop, clock, measure, flags):
    """The 102nd datagram gets EAGAIN at once, of a blocking send too; the 101 before it arrive with the SA."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()

    clock.align(1)
    sent = 0
    with stopwatch() as took, refused("EAGAIN", "sendto() of more packets than the hold queue takes"):
        while sent <= 2 * MOST:
            client.sendto(b"%d" % sent, flags, peers.target)
            sent += 1

    assert measure("larval.hold_queue_limit", sent, "packets") == MOST
    assert took.seconds == approx_timer(0)
    peers.supply()
    assert [server.recv(100) for _ in range(MOST)] == [b"%d" % number for number in range(MOST)]
    client.sendto(b"room again", peers.target)
    assert server.recv(100) == b"room again"


def test_flows_of_one_policy_share_its_queue(peers, larval_drop):
    """The limit counts packets of all sockets: when one has filled the queue, the other gets EAGAIN for its first."""
    larval_drop(0)
    peers.add_policy(socket.SOCK_DGRAM)
    first, second = peers.udp_client(), peers.udp_client()
    for _ in range(MOST):
        first.sendto(b"x", peers.target)

    with refused("EAGAIN", "sendto() of the second socket to a full hold queue"):
        second.sendto(b"x", peers.target)


def test_tcp_takes_a_full_queue_for_a_lost_syn(peers, larval_drop, clock, measure, writable):
    """connect() gives EINPROGRESS, not the queue's EAGAIN; a SYN follows after 1 s. It may have to wait for a look of
    its own, or the kernel finds the SA with it (7.2, over IPv6 only)."""
    larval_drop(0)
    peers.ready()
    everything = xfrm.Selector(peers.here, peers.there)
    filler, _listener, conn = peers.udp_client(), peers.tcp_listener(), peers.tcp_client()
    conn.bind((peers.here, 0))
    # Neighbour discovery needs no SA if it is done already.
    filler.sendto(b"x", peers.target)
    xfrm.add(peers.client, xfrm.Policy(everything, xfrm.Template(peers.here, peers.there)))
    clock.align(1)
    for _ in range(MOST):
        filler.sendto(b"x", peers.target)
    with refused("EAGAIN", "sendto() to a full hold queue"):
        filler.sendto(b"x", peers.target)

    with stopwatch() as took:
        assert name(conn.connect_ex(peers.target)) == "EINPROGRESS"
        peers.supply()
        assert writable(conn, within=20)

    assert measure("larval.connected_after_full_queue", took.seconds, "s", timer_slack(1)) \
        in (approx_timer(1, INTERVALS[0]), approx_timer(1))


def test_socket_stays_full_while_its_datagrams_are_held(peers, larval_drop, clock, charged, writable):
    """Held memory is the sender's: a full send buffer is not writable until the look that finds the SA."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()

    clock.align(1)
    with stopwatch() as took:
        fill_send_buffer(client, peers.target)
        assert not writable(client, within=0.5)
        assert charged(client) >= 1200
        peers.supply()
        assert writable(client, within=20)

    assert took.seconds == approx_timer(*INTERVALS[:3])
    assert charged(client) == 0
    assert len(server.recv(2000)) == 1200


@pytest.mark.virtual_clock("the hold queue is purged after 204.7 s")
def test_held_datagrams_are_given_up_after_204_seconds(peers, larval_drop, clock, measure, charged, writable):
    """The look at 204.7 s, the first after an interval of more than 60 s, purges the queue: nothing is left to release
    when the SA comes later, and the queue takes new packets."""
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
    peers.supply()
    assert server.recv(2000) == b"held anew"


def sockets_in_use(host):
    """All sockets of the host, the one that records its packets included."""
    return host.counter("sockstat.sockets.used")


def test_close_leaves_held_datagrams_to_be_sent(peers, larval_drop):
    """What was sent is sent: the datagram outlives its descriptor in the queue, and then the socket is gone."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    server, client = peers.udp_server(), peers.udp_client()

    client.sendto(b"last words", peers.target)
    client.close()
    # The sockets of earlier requests take a moment to go (RCU).
    eventually("sockets in use at client", lambda: sockets_in_use(peers.client), 2, within=5)
    peers.supply()

    assert server.recv(100) == b"last words"
    eventually("sockets in use at client", lambda: sockets_in_use(peers.client), 1, within=5)


def test_close_leaves_a_held_syn_to_be_sent(peers, larval_drop):
    """It is sent although nobody waits for the answer any more; the answer is then met with a reset."""
    larval_drop(0)
    peers.ready()
    peers.add_policy(socket.SOCK_STREAM)
    _listener, conn = peers.tcp_listener(), peers.tcp_client()
    conn.connect_ex(peers.target)

    with peers.client.capture("esp") as packets:
        conn.close()
        peers.supply()
        packets.until("3 packets", lambda seen: len(seen) == 3, within=5)

    assert [packet.sent for packet in packets] == [True, False, True]
    assert peers.client.counter("Tcp.OutRsts") == 1
