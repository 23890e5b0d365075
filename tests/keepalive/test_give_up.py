"""A silent peer: how long keepalive waits, and how it ends the connection."""

import errno
import time

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, eventually, keepalive, stopwatch, tcp_pair, timer_slack, wait_for_error
from netns.hosts import firewall

pytestmark = pytest.mark.topology(LAN)


def test_keepalive_gives_up_one_interval_after_the_last_probe(net, family, clock, measure):
    """A vanished peer costs idle + count * interval, then ETIMEDOUT (tcp(7), TCP_KEEPCNT)."""
    client, server = net.nodes("client", "server")
    conn, _peer = tcp_pair(client, server, family)
    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        clock.align(1)
        armed = time.time()
        keepalive(conn, idle=1, interval=1, count=2)
        error = wait_for_error(conn, within=20)

    assert error == errno.ETIMEDOUT
    assert len(packets.probes()) == 2
    # The RST leaves when the error is set.
    reset = packets.sent()[-1]
    assert measure("keepalive.dead_after_short", reset.time - armed, "s", timer_slack(1, 1, 1)) == approx_timer(1, 1, 1)


def test_keepalive_sends_rst_when_it_gives_up(net, family):
    """RST|ACK at the next sequence number: a peer that is still alive learns that the connection is gone."""
    client, server = net.nodes("client", "server")
    conn, _peer = tcp_pair(client, server, family)
    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        keepalive(conn, idle=1, interval=1, count=1)
        wait_for_error(conn, within=20)

    probe, reset = packets.sent().exactly(2)
    assert reset.flags == "RA"
    assert (reset.seq, reset.ack, reset.length) == ((probe.seq + 1) % 2**32, probe.ack, 0)


@pytest.mark.virtual_clock("waits more than 2 hours, with the default keepalive timers")
def test_default_keepalive_timers_give_up_after_7875_seconds(net, family, clock, measure):
    """7200 s idle and 9 probes, 75 s apart, are 7875 s; the timer wheel may add 300 s (tcp(7))."""
    client, server = net.nodes("client", "server")
    conn, _peer = tcp_pair(client, server, family)
    with firewall.drop(server, client.address(family)) as dropped, client.capture("tcp") as packets:
        clock.align(7200)
        keepalive(conn)
        with stopwatch() as took:
            error = wait_for_error(conn, within=20000)
        eventually("packets that the firewall dropped", dropped.packets, 9 + 1, within=5)

    assert error == errno.ETIMEDOUT
    assert len(packets.probes()) == 9
    assert measure("keepalive.dead_after", took.seconds, "s", timer_slack(*[75] * 9)) == approx_timer(7200, *[75] * 9)
