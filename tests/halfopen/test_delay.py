"""How long the ACK of a SYN-ACK is held back: the time that a check has for its reset (TCP_DELACK_MAX, 200 ms), and any other one."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, deliver, tcp_info, timer_slack
from netns.attempt import refused
from netns.found import Found
from netns.hosts.qdisc import qdisc
from netns.packets import segment

pytestmark = pytest.mark.topology(LAN)


def test_the_ack_comes_after_at_most_200_ms(service, check, clock, measure):
    """Then the connection is one like any other: the application gets it."""
    clock.align(0.2)
    with service.client.capture("tcp") as packets:
        conn = check.open(service)
        packets.until("3 packets", lambda seen: len(seen) == 3, within=5)

    _syn, answer, ack = packets.exactly(3)
    assert ack.flags == "A"
    assert measure("halfopen.ack_held_back", ack.time - answer.time, "s", timer_slack(0.2)) == approx_timer(0.2)
    deliver(conn, service.accept(), 1000)


def test_data_takes_the_ack_with_it(service, check):
    """What the option is meant for: one segment less."""
    with service.client.capture("tcp") as packets:
        conn = check.open(service)
        conn.sendall(b"hello")
        peer = service.accept()

    assert peer.recv(5) == b"hello"
    assert [packet.flags for packet in packets.sent()] == ["S", "PA"]


def test_data_far_into_the_window_takes_it_as_well(service, check):
    """The ACK and what was sent before this data may have been lost: what acknowledges the SYN-ACK completes the connection,
    wherever in the announced window it lies (RFC 9293, 3.10.7.4)."""
    for host in (service.client, service.server):
        host.pin({"net.ipv4.tcp_timestamps": 0})
    with service.client.capture("tcp") as packets:
        conn = check.open(service)
    syn, answer = packets.exactly(2)
    assert answer.tcp.window > 50_000

    segment.send(service.client, conn.getsockname()[:2], service.address, "PA", syn.tcp.seq + 1 + 50_000, answer.tcp.seq + 1, payload=b"x")

    with service.client.capture("tcp") as packets:
        service.accept()
    assert packets.sent() == []


def test_a_check_that_is_too_slow_is_accepted(service, check, clock):
    """After the ACK the reset finds a connection: the application accepts it, and reads ECONNRESET."""
    conn = check.open(service)
    clock.sleep(0.3)
    conn.close()

    peer = service.accept()
    with refused("ECONNRESET", "recv() of the connection that was reset"):
        peer.recv(1)
    assert tcp_info(peer).state == "CLOSE"


@pytest.mark.virtual_clock("20 s have to pass")
def test_on_a_slow_path_an_ack_is_held_back_no_longer(service, clock, measure):
    """Each ACK that no answer takes along doubles the time that the next one may wait (tcp_delack_timer_handler()), up to
    the round trip, here 600 ms, or 200 ms if that is less."""
    # All of it on the way there: a packet is recorded behind the qdisc.
    with qdisc(service.client, "to-server", "netem", "delay", "600ms"):
        conn, peer = service.connect()
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The first 16 are acknowledged at once.
        with service.server.capture("tcp") as packets:
            for _ in range(40):
                conn.send(b"x")
                clock.sleep(0.5)

    segments = [packet.time for packet in packets.received().which("with data", lambda packet: packet.flags == "PA")]
    sent = packets.sent()
    held = Found("ACKs that server sent after a segment", (
        sent.which("after a segment", lambda ack: ack.time > when)[0].time - when for when in segments[:-1])).some()
    assert measure("halfopen.ack_held_back_at_most", max(held), "s", timer_slack(0.2)) == approx_timer(0.2)
