"""What a keepalive probe looks like, when it is sent, and what answers it (RFC 9293, 3.8.4; RFC 1122, 4.2.3.6)."""

import time

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, keepalive, tcp_pair, timer_slack
from netns.hosts import firewall

pytestmark = pytest.mark.topology(LAN)


def test_probe_carries_no_data_and_an_acknowledged_sequence_number(net, family):
    """SEG.SEQ = SND.NXT - 1 and no garbage byte: the peer must answer and can deliver nothing."""
    client, server = net.nodes("client", "server")
    with client.capture("tcp") as packets:
        conn, peer = tcp_pair(client, server, family)
        conn.sendall(b"hello")
        assert peer.recv(5) == b"hello"

        keepalive(conn, idle=1)
        packets.until("a keepalive probe", lambda seen: seen.probes(), within=10)

    probe = packets.probes().only()
    last_data = packets.sent().which("with 5 bytes of data", lambda packet: packet.length == 5)[0]
    snd_una = last_data.seq + 5
    assert (probe.seq, probe.length, probe.flags) == ((snd_una - 1) % 2**32, 0, "A")


def test_probe_is_answered_by_a_plain_ack(net, family):
    """The peer repeats its last ACK: no data, no other flag (RFC 9293, 3.10.7.4: unacceptable segment)."""
    client, server = net.nodes("client", "server")
    conn, _peer = tcp_pair(client, server, family)

    keepalive(conn, idle=1)
    with client.capture("tcp") as packets:
        packets.until("a packet received", lambda seen: seen.received(), within=10)

    probe, answer = packets.probes().only(), packets.received().only()
    assert (answer.flags, answer.length) == ("A", 0)
    assert (answer.seq, answer.ack) == (probe.ack, (probe.seq + 1) % 2**32)


def test_unanswered_probes_come_after_idle_and_then_every_interval(net, family, clock, measure):
    """With idle 2 s and interval 1 s they are sent at 2 s and at 3 s (tcp(7), TCP_KEEPIDLE and TCP_KEEPINTVL)."""
    client, server = net.nodes("client", "server")
    conn, _peer = tcp_pair(client, server, family)
    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        clock.align(2)
        armed = time.time()
        keepalive(conn, idle=2, interval=1, count=9)
        packets.until("2 keepalive probes", lambda seen: len(seen.probes()) == 2, within=10)

    first, second = packets.probes().exactly(2)
    assert measure("keepalive.first_probe", first.time - armed, "s", timer_slack(2)) == approx_timer(2)
    assert measure("keepalive.probe_interval", second.time - first.time, "s", timer_slack(1)) == approx_timer(1)


def test_answered_probe_restarts_the_idle_time(net, family, clock, measure):
    """A peer that answers is probed every idle time (2 s), not every interval (1 s)."""
    client, server = net.nodes("client", "server")
    conn, _peer = tcp_pair(client, server, family)
    clock.align(2)
    keepalive(conn, idle=2, interval=1)

    with client.capture("tcp") as packets:
        packets.until("2 keepalive probes", lambda seen: len(seen.probes()) == 2, within=10)

    first, second = packets.probes().exactly(2)
    # The timer fires after the interval, finds the answer younger than the idle time, and waits for the rest.
    assert measure("keepalive.answered_interval", second.time - first.time, "s", timer_slack(1, 1)) == approx_timer(1, 1)


def test_received_data_postpones_the_probe(net, family, clock):
    """A probe is due only when nothing was received for the idle time (RFC 1122, 4.2.3.6)."""
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    with client.capture("tcp") as packets:
        clock.align(1)
        keepalive(conn, idle=1)
        clock.sleep(0.2)
        peer.sendall(b"x")
        packets.until("a keepalive probe", lambda seen: seen.probes(), within=10)

    data = packets.received().which("with 1 byte of data", lambda packet: packet.length == 1).only()
    # The timer fires after 1 s, finds 0.8 s of silence, and waits for the rest.
    assert packets.probes()[0].time - data.time == approx_timer(0.8, 0.2)
