"""TIME_WAIT: which side enters it, how long it lasts, and what it blocks (RFC 9293, 3.6.1)."""

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, eventually, stopwatch, timer_slack, wheel_granularity
from netns.attempt import errno_of
from netns.hosts import firewall
from netns.traffic.closing import fence, states, time_waits

pytestmark = pytest.mark.topology(LAN)

LENGTH = 60                                     # seconds: TCP_TIMEWAIT_LEN, include/net/tcp.h


@pytest.mark.parametrize("first", ["client", "server"])
def test_only_the_side_that_closes_first_enters_time_wait(service, first):
    """It sent the last ACK and must be able to send it again."""
    closed = service.closed(first)

    assert (closed.holder.role, time_waits(closed.holder), time_waits(closed.peer)) == (first, 1, 0)


@pytest.mark.virtual_clock("waits 60 s")
def test_time_wait_lasts_60_seconds(service, clock, measure):
    """A constant: tcp_fin_timeout, here 5 s, does not change it."""
    service.server.pin({"net.ipv4.tcp_fin_timeout": 5})
    clock.align(LENGTH)
    service.closed("server")
    with stopwatch() as took:
        clock.sleep(LENGTH - 0.1)
        assert time_waits(service.server) == 1
        eventually("connections of server in TIME_WAIT", lambda: time_waits(service.server), 0, within=20)

    assert measure("timewait.length", took.seconds, "s", timer_slack(LENGTH)) == approx_timer(LENGTH)


@pytest.mark.virtual_clock("waits 60 s")
@pytest.mark.parametrize("first", ["client", "server"])
def test_local_port_is_in_use_during_time_wait_and_free_afterwards(service, clock, first):
    """bind() to address and port without SO_REUSEADDR fails with EADDRINUSE (bind(2)) in TIME_WAIT and succeeds after it,
    whether connect() chose the port or it is a listener's."""
    closed = service.closed(first)
    service.listener.close()

    def bind():
        with closed.holder.socket(service.family) as other:
            return errno_of(other.bind, closed.local)

    assert bind() == "EADDRINUSE"
    clock.sleep(LENGTH + wheel_granularity(LENGTH) + 1)
    assert bind() is None


def test_time_wait_acknowledges_each_retransmitted_fin(service):
    """The peer retransmits its FIN until an ACK arrives; then its socket is gone, and TIME_WAIT remains."""
    conn, peer = service.connect()
    peer.close()
    assert conn.recv(1) == b""
    with service.server.capture("tcp") as packets:
        with firewall.drop(service.client, service.address[0]) as dropped:
            conn.close()
            packets.until("2 packets sent", lambda seen: len(seen.sent()) == 2, within=10)
            lost = eventually("packets that the firewall dropped", dropped.packets, 2, within=5)
        packets.until("a packet sent after the dropped ones", lambda seen: len(seen.sent()) > lost, within=10)
    fence(service.server, service.client, service.client.address(service.family))

    fins = [packet for packet in packets.received() if packet.flags == "FA"]
    assert [packet.flags for packet in packets.sent()] == ["A"] * len(fins)
    assert states(service.client) == []
    assert time_waits(service.server) == 1


@pytest.mark.virtual_clock("waits 90 s")
def test_retransmitted_fin_restarts_time_wait(service, clock):
    """Here after 30 s: the last ACK is sent again, and TIME_WAIT lasts another 60 s."""
    service.server.pin({"net.ipv4.tcp_rfc1337": 1})     # the peer has no such connection and sends an RST
    closed = service.closed("server")
    clock.sleep(30)
    answer = closed.answers("FA", seq=-1, tsval=30_000).only()
    assert (answer.flags, answer.seq, answer.ack) == ("A", closed.snd_nxt, closed.rcv_nxt)

    with stopwatch() as took:
        clock.sleep(LENGTH - 0.1)
        assert time_waits(service.server) == 1
        eventually("connections of server in TIME_WAIT", lambda: time_waits(service.server), 0, within=20)
    assert took.seconds == approx_timer(LENGTH)


@pytest.mark.virtual_clock("waits 60 s")
def test_connect_does_not_use_a_port_pair_in_time_wait(service, clock):
    """With tcp_tw_reuse=0 and one local port: EADDRNOTAVAIL for 60 s (tcp(7))."""
    service.client.pin({"net.ipv4.ip_local_port_range": "40000 40000"})
    service.closed("client")
    for _ in range(3):
        assert refusal(service) == "EADDRNOTAVAIL"
        clock.sleep(19.5)

    eventually("connections of client in TIME_WAIT", lambda: time_waits(service.client), 0, within=20)
    assert service.connect()[0].getsockname()[1] == 40000


def refusal(service):
    return errno_of(service.connect)
