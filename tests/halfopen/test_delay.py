"""How long the ACK of a SYN-ACK is delayed: the time that a check has for its RST (TCP_DELACK_MAX, 200 ms); and other ACKs."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, deliver, tcp_info, timer_slack
from netns.attempt import refused
from netns.hosts.qdisc import qdisc
from netns.named import NamedList
from netns.packets import segment

pytestmark = pytest.mark.topology(LAN)


def test_ack_of_a_syn_ack_is_delayed_by_at_most_200_ms(service, check, clock, measure):
    """But by 40 ms (TCP_DELACK_MIN), the time that a check has for its RST. Then the connection is like any other: the application
    accepts it."""
    clock.align(0.2)
    with service.client.capture("tcp") as packets:
        conn = check.open(service)
        packets.until("3 packets", lambda seen: len(seen) == 3, within=5)

    _syn, answer, ack = packets.exactly(3)
    assert ack.flags == "A"
    held = measure("halfopen.ack_held_back", ack.time - answer.time, "s", timer_slack(0.2))
    assert approx_timer(0.04).least <= held <= approx_timer(0.2).most
    deliver(conn, service.accept(), 1000)


def test_first_data_carries_the_delayed_ack(service, check):
    """The option's purpose: one segment less."""
    with service.client.capture("tcp") as packets:
        conn = check.open(service)
        conn.sendall(b"hello")
        peer = service.accept()

    assert peer.recv(5) == b"hello"
    assert [packet.flags for packet in packets.sent()] == ["S", "PA"]


def test_data_far_into_the_window_completes_the_handshake(service, check):
    """The ACK and earlier data may be lost: any segment that acknowledges the SYN-ACK completes the connection,
    wherever it lies in the announced window (RFC 9293, 3.10.7.4)."""
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


def test_check_that_resets_after_the_delayed_ack_is_accepted(service, check, clock):
    """The RST finds a connection: the application accepts it, and reads ECONNRESET."""
    conn = check.open(service)
    clock.sleep(0.3)
    conn.close()

    peer = service.accept()
    with refused("ECONNRESET", "recv() on the reset connection"):
        peer.recv(1)
    assert tcp_info(peer).state == "CLOSE"


@pytest.mark.virtual_clock("waits 20 s")
def test_ack_is_delayed_by_at_most_200_ms_on_a_slow_path(service, clock, measure):
    """Each delayed ACK that no data carries doubles the next delay (tcp_delack_timer_handler()), up to the round trip,
    here 600 ms, or 200 ms if that is less."""
    # All on the way there: the capture is behind the qdisc.
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
    held = NamedList("delays of the ACKs sent by server", (
        sent.which("after a segment", lambda ack, when=when: ack.time > when)[0].time - when for when in segments[:-1])).some()
    assert approx_timer(0.04).least <= max(held)
    assert measure("halfopen.ack_held_back_at_most", max(held), "s", timer_slack(0.2)) <= approx_timer(0.2).most
