"""An idle connection while another one learns a smaller path MTU: how its next data gets through.

Its MSS is still the old one, so its segment is too large for the host's own route. The host reports the error to
itself, and nothing is in flight to retransmit. The persist timer, 200 ms (TCP_RTO_MIN) or the RTO, sends the data. The
tests accept a kernel without the delay, but none with a longer one, and check all known properties of the delay.
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
    """Send `count` bytes on the idle connection; returns the delay until the peer has them, packets and counters."""
    before = client.counters()
    with client.capture() as packets:
        began = time.monotonic()
        deliver(conn, peer, count)
        delay = time.monotonic() - began
    return delay, packets, client.counters().since(before)


def errors_to_itself(packets):
    """The ICMP errors about the MTU that the host sent to itself: source and destination are the same."""
    return [packet for packet in pmtu.too_big(packets) if packet.source == packet.destination]


def assert_prompt_or_stalled(family, delay, packets, counted, mtu, many=False):
    if delay < PROMPT:
        assert errors_to_itself(packets) == []
        return
    assert delay == approx_timer(0.2)
    # The data was never in flight: no counter of retransmissions, timeouts or window probes moves.
    assert {name: counted.get(name, 0) for name in ("Tcp.RetransSegs", "TcpExt.TCPTimeouts", "TcpExt.TCPWinProbe")} == {
        "Tcp.RetransSegs": 0, "TcpExt.TCPTimeouts": 0, "TcpExt.TCPWinProbe": 0}
    if family == socket.AF_INET:
        errors = errors_to_itself(packets)
        assert {pmtu.announced(error) for error in errors} == {mtu}
        expected = {"Ip.FragFails": 1, "Icmp.InDestUnreachs": 1, "Icmp.OutDestUnreachs": 1}
    else:
        expected = {"Ip6.FragFails": 1}
    seen = {name: counted.get(name, 0) for name in expected}
    assert seen == expected if not many else all(seen.values()), seen


@pytest.mark.topology(DIRECTED)
@pytest.mark.parametrize("segments", [1, 6], ids=["one-segment", "gso"])
def test_idle_connection_stalls_no_longer_than_the_persist_timer(net, service, measure, segments):
    """Behind the director: 200 ms after another connection lowered the virtual address's path MTU to the tunnel's."""
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
def test_idle_connection_over_a_narrow_link_stalls_no_longer_than_the_persist_timer(net, family, measure):
    """A narrow link has the same effect as IPVS."""
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
def test_ack_of_data_in_flight_releases_the_stalled_data(net, family, measure):
    """One byte is in flight when the full segment meets the route: its ACK, which the peer delays by 40 ms
    (TCP_DELACK_MIN), releases the data before any other timer."""
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
def test_relearned_exception_stalls_an_idle_connection_for_at_most_200_ms(net, family, clock, measure):
    """A connection that has regained its full MSS is too large again when another one relearns the path MTU."""
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
