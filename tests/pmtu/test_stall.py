"""A connection that is idle while another one learns a smaller path MTU: how its next data gets through.

Its MSS is still the old one, so its segment is too large for the host's own route: the host tells itself so, and
nothing in flight means nothing to retransmit. The persist timer, 200 ms (TCP_RTO_MIN) or the RTO, sends the data. The
tests accept a kernel that does better, but none that takes longer, and hold the delaying one to all that is known of
the delay.
"""

import socket
import time

import pytest

from fixtures.topologies import DIRECTED, NARROW
from netns import approx_timer, deliver, tcp_info, tcp_pair, timer_slack
from netns.packets import pmtu

# Data that waits for no timer arrives within this many seconds.
PROMPT = 0.1


def stalled(client, conn, peer, count):
    """Send `count` bytes on the idle connection: how long until the peer has them, the packets, what was counted."""
    before = client.counters()
    with client.capture() as packets:
        began = time.monotonic()
        deliver(conn, peer, count)
        delay = time.monotonic() - began
    return delay, packets, client.counters().since(before)


def to_itself(packets):
    """The ICMP errors about the MTU that the host sent itself: source and destination are the same address."""
    return [packet for packet in pmtu.too_big(packets) if packet.source == packet.destination]


def assert_prompt_or_stalled(family, delay, packets, counted, mtu, many=False):
    if delay < PROMPT:
        assert to_itself(packets) == []
        return
    assert delay == approx_timer(0.2)
    # The data was never in flight: no retransmission, no timeout, no window probe counts it.
    assert {name: counted.get(name, 0) for name in ("Tcp.RetransSegs", "TcpExt.TCPTimeouts", "TcpExt.TCPWinProbe")} == {
        "Tcp.RetransSegs": 0, "TcpExt.TCPTimeouts": 0, "TcpExt.TCPWinProbe": 0}
    if family == socket.AF_INET:
        errors = to_itself(packets)
        assert {pmtu.announced(error) for error in errors} == {mtu}
        expected = {"Ip.FragFails": 1, "Icmp.InDestUnreachs": 1, "Icmp.OutDestUnreachs": 1}
    else:
        expected = {"Ip6.FragFails": 1}
    seen = {name: counted.get(name, 0) for name in expected}
    assert seen == expected if not many else all(seen.values()), seen


@pytest.mark.topology(DIRECTED)
@pytest.mark.parametrize("segments", [1, 6], ids=["one-segment", "gso"])
def test_data_of_an_idle_connection_waits_at_most_for_the_persist_timer(net, service, measure, segments):
    """Behind the director: 200 ms after another connection shrank the virtual address's path to the tunnel's MTU."""
    client = net["client"]
    learner, learner_peer = service.connect(client)
    idle, idle_peer = service.connect(client)
    deliver(learner, learner_peer, service.largest(1500))
    assert tcp_info(idle).snd_mss == service.largest(1500)

    delay, packets, counted = stalled(client, idle, idle_peer, segments * service.largest(1500))

    measure(f"pmtu.stall.{segments}_segments", delay, "s", timer_slack(0.2))
    assert_prompt_or_stalled(service.family, delay, packets, counted, service.tunnel_mtu, many=segments > 1)
    assert tcp_info(idle).snd_mss == service.largest(service.tunnel_mtu)
    with client.capture() as later:
        deliver(idle, idle_peer, 3 * service.largest(1500))
    assert pmtu.too_big(later) == []


@pytest.mark.topology(NARROW)
def test_the_stall_needs_no_ipvs(net, family, measure):
    """A narrow link on the way does the same."""
    client, server = net.nodes("client", "server")
    learner, learner_peer = tcp_pair(client, server, family)
    idle, idle_peer = tcp_pair(client, server, family)
    deliver(learner, learner_peer, 1600)
    full = tcp_info(idle).snd_mss

    delay, packets, counted = stalled(client, idle, idle_peer, full)

    measure("pmtu.stall.narrow_link", delay, "s", timer_slack(0.2))
    assert_prompt_or_stalled(family, delay, packets, counted, 1400)
    assert tcp_info(idle).snd_mss == full - 100


@pytest.mark.topology(NARROW)
def test_with_data_in_flight_the_next_acknowledgement_sends_the_rest(net, family, measure):
    """A byte is on its way when the full segment meets the route: its acknowledgement, which the peer delays by 40 ms
    (TCP_DELACK_MIN), releases the data, and no other timer is needed."""
    client, server = net.nodes("client", "server")
    learner, learner_peer = tcp_pair(client, server, family)
    busy, busy_peer = tcp_pair(client, server, family)
    busy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    full = tcp_info(busy).snd_mss
    busy_peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    busy.send(b"x")
    deliver(learner, learner_peer, 1600)
    assert tcp_info(busy).unacked == 1

    began = time.monotonic()
    deliver(busy, busy_peer, full)

    assert measure("pmtu.stall.in_flight", time.monotonic() - began, "s", timer_slack(0.04)) < PROMPT


@pytest.mark.topology(NARROW)
def test_the_stall_recurs_when_the_exception_expired_and_was_learned_again(net, family, clock, measure):
    """A connection that has got its full MSS back is too large once more when another one learns the path anew."""
    client, server = net.nodes("client", "server")
    with pmtu.expiry(client, family, 2):
        learner, learner_peer = tcp_pair(client, server, family)
        idle, idle_peer = tcp_pair(client, server, family)
        full = tcp_info(idle).snd_mss
        deliver(learner, learner_peer, 1600)
        deliver(idle, idle_peer, 1600)
        clock.sleep(2.5)
        # The lookup for a new connection removes the exception.
        another, another_peer = tcp_pair(client, server, family)
        for _what in ("a valid route", "its MSS"):
            deliver(idle, idle_peer, 1)
        assert tcp_info(idle).snd_mss == full
        deliver(another, another_peer, 1600)

        delay, packets, counted = stalled(client, idle, idle_peer, full)

    measure("pmtu.stall.after_expiry", delay, "s", timer_slack(0.2))
    assert_prompt_or_stalled(family, delay, packets, counted, 1400)
