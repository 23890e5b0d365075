"""An idle connection while another one learns a smaller path MTU: how its next data gets through.

Its MSS is still the old one, so its segment is too large for the host's own route. The host reports the error to
itself, and nothing is in flight to retransmit. The persist timer, 200 ms (TCP_RTO_MIN) or the RTO, sends the data. The
tests accept a kernel without the delay, but none with a longer one. What is counted meanwhile is measured.
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


@pytest.fixture
def record(measure):
    """record(name, stalled()): measure what the sender counted and told itself; the delay is the persist timer's at most."""
    def keep(name, seen):
        delay, packets, counted = seen
        for counter in ("Tcp.RetransSegs", "TcpExt.TCPTimeouts", "TcpExt.TCPWinProbe", "Ip.FragFails", "Ip6.FragFails"):
            measure(f"pmtu.stall.{name}.{counter}", counted.get(counter, 0), "of this counter")
        to_itself = [packet for packet in pmtu.too_big(packets) if packet.source == packet.destination]
        measure(f"pmtu.stall.{name}.errors_to_itself", len(to_itself), "errors")
        assert measure(f"pmtu.stall.{name}", delay, "s", timer_slack(0.2)) <= approx_timer(0.2).most
    return keep


@pytest.mark.topology(DIRECTED)
@pytest.mark.parametrize("segments", [1, 6], ids=["one-segment", "gso"])
def test_idle_connection_stalls_no_longer_than_the_persist_timer(net, service, record, segments):
    """Behind the director: 200 ms after another connection lowered the virtual address's path MTU to the tunnel's."""
    client = net["client"]
    learner, learner_peer = service.connect(client)
    idle, idle_peer = service.connect(client)
    deliver(learner, learner_peer, service.largest(1500))
    assert tcp_info(idle).snd_mss == service.largest(1500)

    record(f"{segments}_segments", stalled(client, idle, idle_peer, segments * service.largest(1500)))

    assert tcp_info(idle).snd_mss == service.largest(service.tunnel_mtu)
    with client.capture() as later:
        deliver(idle, idle_peer, 3 * service.largest(1500))
    assert pmtu.too_big(later) == []


@pytest.mark.topology(NARROW)
def test_idle_connection_over_a_narrow_link_stalls_no_longer_than_the_persist_timer(net, family, record):
    """A narrow link has the same effect as IPVS."""
    client, server = net.nodes("client", "server")
    learner, learner_peer = tcp_pair(client, server, family)
    idle, idle_peer = tcp_pair(client, server, family)
    deliver(learner, learner_peer, 1600)
    full = tcp_info(idle).snd_mss

    record("narrow_link", stalled(client, idle, idle_peer, full))

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
def test_relearned_exception_stalls_an_idle_connection_for_at_most_200_ms(net, family, clock, record):
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

        record("after_expiry", stalled(client, idle, idle_peer, full))

    assert tcp_info(idle).snd_mss == full - 100
