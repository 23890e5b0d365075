"""RSTs for a connection in TIME_WAIT, and tcp_rfc1337, which decides whether they end it (RFC 1337)."""

import pytest

from fixtures.topologies import LAN
from netns.traffic.closing import time_waits

pytestmark = pytest.mark.topology(LAN)


@pytest.mark.parametrize("rfc1337, left", [(0, 0), (1, 1)])
def test_in_sequence_rst_ends_time_wait_unless_rfc1337_is_set(service, rfc1337, left):
    """SEG.SEQ == RCV.NXT, with or without a timestamp (ip-sysctl.rst, tcp_rfc1337)."""
    service.server.pin({"net.ipv4.tcp_rfc1337": rfc1337})
    for tsval in (None, 0, 1000):
        closed = service.closed()
        assert (closed.answers("R", 0, tsval), time_waits(service.server)) == ([], left)
        service.server.pin({"net.ipv4.tcp_rfc1337": 0})
        closed.answers("R", 0)                          # the next round starts without TIME_WAIT
        service.server.pin({"net.ipv4.tcp_rfc1337": rfc1337})


@pytest.mark.parametrize("rfc1337", [0, 1])
def test_rst_out_of_sequence_or_with_an_old_timestamp_does_not_end_time_wait(service, rfc1337):
    """It gets no answer: a host never answers an RST."""
    service.server.pin({"net.ipv4.tcp_rfc1337": rfc1337})
    closed = service.closed()

    for seq, tsval in ((-1, None), (1, None), (1000, None), (-1, 1000), (0, -1000)):
        assert (closed.answers("R", seq, tsval), time_waits(service.server)) == ([], 1)


def test_old_duplicate_assassinates_time_wait(service):
    """RFC 1337, figure 1: the client has no socket for the ACK of the old segment, and its RST ends TIME_WAIT."""
    closed = service.closed(data=b"hello")

    with service.client.capture("tcp") as packets:
        closed.answers("PA", seq=-6, tsval=0, payload=b"hello")

    assert [packet.flags for packet in packets] == ["PA", "A", "R"]
    assert time_waits(service.server) == 0
