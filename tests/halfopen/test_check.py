"""What a half-open check sends; it leaves nothing behind at either end."""

import socket

import pytest

from fixtures.topologies import LAN
from netns.attempt import refused
from netns.traffic.closing import fence, states

pytestmark = pytest.mark.topology(LAN)


def accept_queue_is_empty(listener):
    listener.setblocking(False)
    try:
        listener.accept()
    except BlockingIOError:
        return True
    return False


def test_half_open_check_sends_only_syn_and_rst(service, check):
    """The RST acknowledges the SYN-ACK and follows the SYN in sequence, so the server must accept it."""
    with service.client.capture("tcp") as packets:
        check.run(service)
        fence(service.client, service.server, service.address[0])

    syn, answer, reset = packets.exactly(3)
    assert [packet.flags for packet in (syn, answer, reset)] == ["S", "SA", "RA"]
    assert (reset.seq, reset.ack) == ((syn.seq + 1) % 2**32, (answer.seq + 1) % 2**32)


def test_half_open_check_never_reaches_the_application(service, check):
    """The request ends before it becomes a connection: EmbryonicRsts and AttemptFails + 1, PassiveOpens 0."""
    before = service.server.counters()

    check.run(service)
    fence(service.client, service.server, service.address[0])

    counted = service.server.counters().since(before)
    assert (counted["TcpExt.EmbryonicRsts"], counted["Tcp.AttemptFails"]) == (1, 1)
    assert "Tcp.PassiveOpens" not in counted
    assert accept_queue_is_empty(service.listener)


def test_half_open_check_leaves_no_socket_behind(service, check):
    """No TIME_WAIT at the client, no request at the server."""
    check.run(service)
    fence(service.client, service.server, service.address[0])

    assert (states(service.client), states(service.server)) == ([], [])


def test_source_port_of_a_half_open_check_is_free_at_once(service, check):
    """The same one, ten times in a row, without SO_REUSEADDR."""
    for _ in range(10):
        check.run(service, port=40000)

    assert service.server.counter("TcpExt.EmbryonicRsts") == 10


@pytest.mark.parametrize("linger, last", [(b"\1\0\0\0\0\0\0\0", "RA"), (bytes(8), "FA")], ids=["reset", "fin"])
def test_ordinary_connection_is_accepted_even_if_closed_at_once(service, linger, last):
    """By default the ACK goes out at once, and even a RST right after it is too late: the application accepts a
    connection that is over."""
    conn = service.client.socket(service.family)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    with service.client.capture("tcp") as packets:
        conn.connect(service.address)
        conn.close()
        fence(service.client, service.server, service.address[0])

    assert [packet.flags for packet in packets][:4] == ["S", "SA", "A", last]
    assert service.server.counter("Tcp.PassiveOpens") == 1
    service.accept()


def test_check_of_a_closed_port_fails_with_econnrefused(service, check):
    """A RST answers the SYN."""
    service.listener.close()

    with refused("ECONNREFUSED", "connect() to the closed port"):
        check.run(service)


def test_check_of_a_listener_with_a_full_accept_queue_times_out(service, check):
    """The SYN and its retransmissions are dropped and counted (ListenOverflows): a server that no longer accepts is not
    healthy."""
    service.client.pin({"net.ipv4.tcp_syn_retries": 1})
    service.listener.listen(0)
    waiting = service.client.socket(service.family)
    waiting.connect(service.address)
    service.server.await_counter("Tcp.PassiveOpens", 1, within=5)

    with refused("ETIMEDOUT", "connect() to the listener with a full accept queue"):
        check.run(service)

    assert service.server.counter("TcpExt.ListenOverflows") >= 2
    assert service.accept().getpeername() == waiting.getsockname()
