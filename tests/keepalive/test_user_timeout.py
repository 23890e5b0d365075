"""TCP_USER_TIMEOUT, where set, overrides the probe count (tcp(7))."""

import errno
import socket
import time

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, keepalive, tcp_pair, timer_slack, wait_for_error
from netns.hosts import firewall
from netns.named import NamedDict

pytestmark = pytest.mark.topology(LAN)

# idle s, interval s, count, user timeout ms, and the timers until the end: the first idle + k * interval (k >= 1)
# after the user timeout.
CASES = [
    (1, 1, 9, 1500, (1, 1)),
    (1, 1, 1, 2900, (1, 1, 1)),
    (2, 1, 9, 500, (2, 1)),
]


def test_user_timeout_overrides_the_probe_count(net, family, clock, measure):
    """It ends one connection before its last probe and keeps another alive after; checked when a probe is due."""
    client, server = net.nodes("client", "server")
    clock.align(2)
    conns, began = [], []
    with client.capture("tcp") as packets:
        for idle, interval, count, user_timeout, _timers in CASES:
            began.append(time.time())       # the kernel counts from the last segment that it received
            conn, _peer = tcp_pair(client, server, family)
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout)
            keepalive(conn, idle, interval, count)
            conns.append(conn)
        with firewall.drop(server, client.address(family)):
            for conn in conns:
                assert wait_for_error(conn, within=20) == errno.ETIMEDOUT

    resets = NamedDict("times of the RSTs sent by client, by port",
                     {packet.sport: packet.time for packet in packets.sent() if packet.flags == "RA"})
    for conn, start, (idle, interval, _count, user_timeout, timers) in zip(conns, began, CASES):
        name = f"keepalive.user_timeout.{idle}s_{interval}s_{user_timeout}ms"
        assert measure(name, resets[conn.getsockname()[1]] - start, "s", timer_slack(*timers)) == approx_timer(*timers)
