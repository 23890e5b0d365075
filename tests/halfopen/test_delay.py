"""How long the ACK of a SYN-ACK is held back: the time that a check has for its reset (TCP_DELACK_MAX, 200 ms)."""

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, deliver, tcp_info

pytestmark = pytest.mark.topology(LAN)


def test_the_ack_comes_after_at_most_200_ms(service, check, clock, measure):
    """Then the connection is one like any other: the application gets it."""
    clock.align(0.2)
    with service.client.capture("tcp") as packets:
        conn = check.open(service)
        packets.until(lambda seen: len(seen) == 3, within=5)

    _syn, answer, ack = packets
    assert ack.flags == "A"
    assert measure("halfopen.ack_held_back", ack.time - answer.time, "s", tolerance=0.01) == approx_timer(0.2)
    deliver(conn, service.accept(), 1000)


def test_data_takes_the_ack_with_it(service, check):
    """What the option is meant for: one segment less."""
    with service.client.capture("tcp") as packets:
        conn = check.open(service)
        conn.sendall(b"hello")
        peer = service.accept()

    assert peer.recv(5) == b"hello"
    assert [packet.flags for packet in packets.sent()] == ["S", "PA"]


def test_a_check_that_is_too_slow_is_accepted(service, check, clock):
    """After the ACK the reset finds a connection: the application accepts it, and reads ECONNRESET."""
    conn = check.open(service)
    clock.sleep(0.3)
    conn.close()

    peer = service.accept()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    assert tcp_info(peer).state == "CLOSE"
