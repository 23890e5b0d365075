"""A client reconnects from the same port while the server has the old connection in TIME_WAIT."""

import pytest

from fixtures.topologies import LAN
from netns import TICK, approx_timer, deliver, stopwatch, timer_slack
from netns.traffic.closing import time_waits

pytestmark = pytest.mark.topology(LAN)


@pytest.mark.parametrize("timestamps", [1, 0])
@pytest.mark.parametrize("rfc1337", [0, 1])
def test_reconnect_from_the_same_port_succeeds_at_once(service, timestamps, rfc1337):
    """The ISN grows with the clock (RFC 6528): no SYN is rejected or retransmitted."""
    for host in (service.client, service.server):
        host.pin({"net.ipv4.tcp_timestamps": timestamps, "net.ipv4.tcp_rfc1337": rfc1337})
    closed = service.closed(data=bytes(1000))

    with service.client.capture("tcp") as packets:
        conn, peer = service.connect(closed.remote[1])

    assert [packet.flags for packet in packets] == ["S", "SA", "A"]
    assert time_waits(service.server) == 0
    deliver(conn, peer, 100_000)
    deliver(peer, conn, 100_000)


def test_client_answers_a_rejected_syn_with_rst_and_reconnects_at_once(service, measure):
    """The server answers the old SYN with an ACK. The client's RST ends TIME_WAIT, and the next SYN follows after
    2 jiffies instead of 1 s (tcp_rcv_synsent_state_process(), net/ipv4/tcp_input.c)."""
    closed = rejecting(service)

    with service.client.capture("tcp") as packets, stopwatch() as took:
        conn, peer = service.connect(closed.remote[1], isn=closed.rcv_nxt - 100_000)

    assert [packet.flags for packet in packets] == ["S", "A", "R", "S", "SA", "A"]
    _syn, _ack, reset, again, _syn_ack, _last = packets.exactly(6)
    assert (reset.seq, again.seq) == (closed.rcv_nxt, (closed.rcv_nxt - 100_000) % 2**32)
    assert measure("timewait.reconnected_after_rejection", took.seconds, "s", timer_slack(2 * TICK)) == approx_timer(2 * TICK)
    deliver(conn, peer, 1000)


@pytest.mark.virtual_clock("waits 60 s of TIME_WAIT")
def test_with_rfc1337_a_rejected_client_reconnects_after_time_wait(service, clock, measure):
    """The server ignores the RST; a retransmitted SYN succeeds once TIME_WAIT has ended."""
    service.client.pin({"net.ipv4.tcp_syn_retries": 6})
    service.server.pin({"net.ipv4.tcp_rfc1337": 1})
    clock.align(60)
    closed = rejecting(service)

    with stopwatch() as took:
        conn, peer = service.connect(closed.remote[1], isn=closed.rcv_nxt - 100_000, within=130)

    assert 60 <= measure("timewait.reconnected_with_rfc1337", took.seconds, "s", timer_slack(1, 2, 4, 8, 16, 32)) < 72
    measure("timewait.acks_skipped_with_rfc1337", service.server.counter("TcpExt.TCPACKSkippedTimeWait"), "ACKs", tolerance=2)
    deliver(conn, peer, 1000)


def rejecting(service):
    """A closed connection without timestamps: a newer TSval would make an old SYN acceptable."""
    for host in (service.client, service.server):
        host.pin({"net.ipv4.tcp_timestamps": 0})
    return service.closed()
