"""The persist timer probes a peer whose window stays closed; TCP_USER_TIMEOUT ends that too (RFC 5482)."""

import errno
import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch, timer_slack, wait_for_error, zero_window_pair

# Minimum of the persist timer (TCP_RTO_MIN), in seconds.
LEAST = 0.2


@pytest.mark.topology(LAN)
def test_expired_user_timeout_ends_zero_window_probing_within_200_ms(net, family, measure):
    """The option is set when the probes have backed off to seconds, and has expired when the peer's next segment, its
    window still closed, rearms the timer: with its minimum, not the rest of the interval ("tcp: make probe0 timer
    handle expired user timeout")."""
    client, server = net.nodes("client", "server")
    conn, peer = zero_window_pair(client, server, family)
    client.await_counter("TcpExt.TCPWinProbe", 4, within=30)

    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
    with client.capture("tcp") as packets:
        # Urgent data disables header prediction, which does not process a duplicate ACK.
        peer.send(b"x", socket.MSG_OOB)
        packets.until("a packet received", lambda seen: seen.received(), within=5)
        with stopwatch() as took:
            assert wait_for_error(conn, within=30) == errno.ETIMEDOUT

    assert {packet.tcp.window for packet in packets.received()} == {0}
    assert measure("keepalive.zero_window_user_timeout", took.seconds, "s", timer_slack(LEAST)) <= approx_timer(LEAST).most
