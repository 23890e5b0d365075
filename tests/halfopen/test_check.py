"""What a half-open check sends, and what it leaves behind at both ends: nothing."""

import socket

import pytest

from fixtures.topologies import LAN
from netns.attempt import refused
from netns.traffic.closing import fence, states

pytestmark = pytest.mark.topology(LAN)


def nobody_waits_to_be_accepted(listener):
    listener.setblocking(False)
    try:
        listener.accept()
    except BlockingIOError:
        return True
    return False


def test_a_check_sends_a_syn_and_a_reset_only(service, check):
    """The reset acknowledges the SYN-ACK and follows the SYN in sequence, so that the server must take it."""
    with service.client.capture("tcp") as packets:
        check.run(service)
        fence(service.client, service.server, service.address[0])

    syn, answer, reset = packets.exactly(3)
    assert [packet.flags for packet in (syn, answer, reset)] == ["S", "SA", "RA"]
    assert (reset.seq, reset.ack) == ((syn.seq + 1) % 2**32, (answer.seq + 1) % 2**32)


def test_the_application_never_hears_of_a_check(service, check):
    """The request ends before it becomes a connection: EmbryonicRsts and AttemptFails + 1, PassiveOpens 0."""
    before = service.server.counters()

    check.run(service)
    fence(service.client, service.server, service.address[0])

    counted = service.server.counters().since(before)
    assert (counted["TcpExt.EmbryonicRsts"], counted["Tcp.AttemptFails"]) == (1, 1)
    assert "Tcp.PassiveOpens" not in counted
    assert nobody_waits_to_be_accepted(service.listener)


def test_a_check_leaves_nothing_behind(service, check):
    """No TIME_WAIT at the client, no request at the server."""
    check.run(service)
    fence(service.client, service.server, service.address[0])

    assert (states(service.client), states(service.server)) == ([], [])


def test_the_port_is_free_at_once(service, check):
    """The same one, ten times in a row, without SO_REUSEADDR."""
    for _ in range(10):
        check.run(service, port=40000)

    assert service.server.counter("TcpExt.EmbryonicRsts") == 10


@pytest.mark.parametrize("linger, last", [(b"\1\0\0\0\0\0\0\0", "RA"), (bytes(8), "FA")], ids=["reset", "fin"])
def test_an_ordinary_connection_is_accepted(service, linger, last):
    """With the defaults the ACK goes out at once, and even a reset right after it comes too late: the application
    gets a connection that is over."""
    conn = service.client.socket(service.family)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    with service.client.capture("tcp") as packets:
        conn.connect(service.address)
        conn.close()
        fence(service.client, service.server, service.address[0])

    assert [packet.flags for packet in packets][:4] == ["S", "SA", "A", last]
    assert service.server.counter("Tcp.PassiveOpens") == 1
    service.accept()


def test_a_port_without_a_listener_fails_the_check(service, check):
    """ECONNREFUSED: a reset answers the SYN."""
    service.listener.close()

    with refused("ECONNREFUSED", "a check of the closed port"):
        check.run(service)


def test_a_listener_whose_queue_is_full_fails_the_check(service, check):
    """The SYN and its repetitions are dropped and counted (ListenOverflows): a server that does not accept any more is
    not healthy."""
    service.client.pin({"net.ipv4.tcp_syn_retries": 1})
    service.listener.listen(0)
    waiting = service.client.socket(service.family)
    waiting.connect(service.address)
    service.server.reaches("Tcp.PassiveOpens", 1, within=5)

    with refused("ETIMEDOUT", "a check of the listener whose queue is full"):
        check.run(service)

    assert service.server.counter("TcpExt.ListenOverflows") >= 2
    assert service.accept().getpeername() == waiting.getsockname()
