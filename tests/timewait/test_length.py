"""How long TIME_WAIT lasts, who has it, and what it keeps from others meanwhile (RFC 9293, 3.6.1)."""

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, eventually, stopwatch, timer_slack, wheel_granularity
from netns.attempt import errno_of
from netns.hosts import firewall
from netns.traffic.closing import fence, states, time_waits

pytestmark = pytest.mark.topology(LAN)

LENGTH = 60                                     # seconds: TCP_TIMEWAIT_LEN, include/net/tcp.h


@pytest.mark.parametrize("first", ["client", "server"])
def test_the_side_that_closes_first_has_it_and_the_other_nothing(service, first):
    """Whoever sends the last ACK has to be able to send it again."""
    closed = service.closed(first)

    assert (closed.holder.role, time_waits(closed.holder), time_waits(closed.peer)) == (first, 1, 0)


@pytest.mark.virtual_clock("60 s have to pass")
def test_it_lasts_60_seconds(service, clock, measure):
    """Fixed in the kernel, whatever tcp_fin_timeout says."""
    service.server.pin({"net.ipv4.tcp_fin_timeout": 5})
    clock.align(LENGTH)
    service.closed("server")
    with stopwatch() as took:
        clock.sleep(LENGTH - 0.1)
        assert time_waits(service.server) == 1
        eventually("connections of server in TIME_WAIT", lambda: time_waits(service.server), 0, within=20)

    assert measure("timewait.length", took.seconds, "s", timer_slack(LENGTH)) == approx_timer(LENGTH)


@pytest.mark.virtual_clock("60 s have to pass")
@pytest.mark.parametrize("first", ["client", "server"])
def test_afterwards_its_port_is_anybodys(service, clock, first):
    """bind() to address and port without SO_REUSEADDR says EADDRINUSE (bind(2)) for as long as it lasts, and no longer,
    whether connect() chose the port or a listener gave it."""
    closed = service.closed(first)
    service.listener.close()

    def bind():
        with closed.holder.socket(service.family) as other:
            return errno_of(other.bind, closed.local)

    assert bind() == "EADDRINUSE"
    clock.sleep(LENGTH + wheel_granularity(LENGTH) + 1)
    assert bind() is None


def test_a_lost_last_ack_is_sent_again(service):
    """The peer repeats its FIN until it is acknowledged; then the peer is done, and TIME_WAIT goes on."""
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


@pytest.mark.virtual_clock("90 s have to pass")
def test_a_fin_that_comes_again_starts_the_time_anew(service, clock):
    """The last ACK is sent again, here after 30 s, and has 60 s to get lost in."""
    service.server.pin({"net.ipv4.tcp_rfc1337": 1})     # the peer has forgotten the connection, and resets it
    closed = service.closed("server")
    clock.sleep(30)
    answer = closed.answers("FA", seq=-1, tsval=30_000).only()
    assert (answer.flags, answer.seq, answer.ack) == ("A", closed.snd_nxt, closed.rcv_nxt)

    with stopwatch() as took:
        clock.sleep(LENGTH - 0.1)
        assert time_waits(service.server) == 1
        eventually("connections of server in TIME_WAIT", lambda: time_waits(service.server), 0, within=20)
    assert took.seconds == approx_timer(LENGTH)


@pytest.mark.virtual_clock("60 s have to pass")
def test_the_pair_of_ports_is_not_used_for_a_new_connection_meanwhile(service, clock):
    """connect() from the only port there is: EADDRNOTAVAIL for 60 s, with tcp_tw_reuse=0 (tcp(7))."""
    service.client.pin({"net.ipv4.ip_local_port_range": "40000 40000"})
    service.closed("client")
    for _ in range(3):
        assert refusal(service) == "EADDRNOTAVAIL"
        clock.sleep(19.5)

    eventually("connections of client in TIME_WAIT", lambda: time_waits(service.client), 0, within=20)
    assert service.connect()[0].getsockname()[1] == 40000


def refusal(service):
    return errno_of(service.connect)
