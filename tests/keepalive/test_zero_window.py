"""A peer whose window stays closed is probed by the persist timer; TCP_USER_TIMEOUT ends that too (RFC 5482)."""

import errno
import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch, timer_slack, wait_for_error, zero_window_pair

# The least interval of the persist timer (TCP_RTO_MIN), in seconds.
LEAST = 0.2


@pytest.mark.topology(LAN)
def test_a_user_timeout_that_is_over_ends_the_next_probe_interval(net, family, measure):
    """The option is set when the probes have backed off to seconds, and the time is over by then: the peer's next
    segment, its window still closed, sets the timer anew, to its least and not to the rest of the interval ("tcp: make
    probe0 timer handle expired user timeout")."""
    client, server = net.nodes("client", "server")
    conn, peer = zero_window_pair(client, server, family)
    client.reaches("TcpExt.TCPWinProbe", 4, within=30)

    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
    with client.capture("tcp") as packets:
        # Urgent data: of a segment that is predicted by its header the kernel does not look at the acknowledgement.
        peer.send(b"x", socket.MSG_OOB)
        packets.until("a packet received", lambda seen: seen.received(), within=5)
        with stopwatch() as took:
            assert wait_for_error(conn, within=30) == errno.ETIMEDOUT

    assert {packet.tcp.window for packet in packets.received()} == {0}
    assert measure("keepalive.zero_window_user_timeout", took.seconds, "s", timer_slack(LEAST)) <= approx_timer(LEAST).most
