"""Which SYNs take over a port pair in TIME_WAIT, and how the others are answered (RFC 1122, 4.2.2.13; RFC 6191)."""

import pytest

from fixtures.topologies import LAN

pytestmark = pytest.mark.topology(LAN)

# The SYN's sequence number and TSval, relative to the old connection's last ones -> the answer.
NEW, SAME, OLD = 1000, 0, -1000
TAKES_OVER, REJECTED = "SA", "A"
WITH_TIMESTAMPS = {
    (NEW, NEW): TAKES_OVER, (NEW, SAME): TAKES_OVER, (NEW, OLD): REJECTED, (NEW, None): TAKES_OVER,
    (SAME, NEW): TAKES_OVER, (SAME, SAME): REJECTED, (SAME, OLD): REJECTED, (SAME, None): REJECTED,
    (OLD, NEW): TAKES_OVER, (OLD, SAME): REJECTED, (OLD, OLD): REJECTED, (OLD, None): REJECTED,
}
# If the old connection had no timestamps, the SYN's TSval does not count.
WITHOUT_TIMESTAMPS = {
    (NEW, None): TAKES_OVER, (SAME, None): REJECTED, (OLD, None): REJECTED,
    (NEW, OLD): TAKES_OVER, (OLD, NEW): REJECTED,
}


@pytest.mark.parametrize("timestamps, rule", [(1, WITH_TIMESTAMPS), (0, WITHOUT_TIMESTAMPS)])
def test_syn_with_a_newer_sequence_number_or_timestamp_takes_over_time_wait(service, timestamps, rule):
    """If its timestamp is not older (PAWS): tcp_timewait_state_process(), net/ipv4/tcp_minisocks.c."""
    service.server.pin({"net.ipv4.tcp_timestamps": timestamps})

    seen = {offsets: [answer.flags for answer in service.closed().answers("S", *offsets)] for offsets in rule}

    assert seen == {offsets: [answer] for offsets, answer in rule.items()}


def test_new_isn_lies_beyond_the_sequence_numbers_of_the_old_connection(service, measure):
    """ISN = SND.NXT + 65535 + 2 (tcp_timewait_state_process()), beyond any segment of the old connection (RFC 9293, 3.4.1). An ISN from
    the clock (RFC 6528) may lie among them, and does in every second connection."""
    closed = service.closed(data=b"hello")

    answer = closed.answers("S", NEW, NEW).only()

    step = (answer.seq - closed.snd_nxt) % 2**32
    measure("timewait.isn_from_the_old_connection", int(step == 65537), "of 1")
    assert answer.ack == (closed.rcv_nxt + NEW + 1) % 2**32
    assert step == 65535 + 2


def test_rejected_syn_is_answered_with_an_ack_of_the_old_connection(service):
    """So a peer without that connection can reset it (RFC 9293, 3.10.7.4)."""
    closed = service.closed()

    answer = closed.answers("S", OLD).only()

    assert (answer.flags, answer.seq, answer.ack) == ("A", closed.snd_nxt, closed.rcv_nxt)


def test_syn_that_paws_rejects_in_time_wait_is_counted(service):
    """As PAWSTimewait; before "tcp: add LINUX_MIB_PAWS_TW_REJECTED counter" as PAWSEstab."""
    closed = service.closed()
    before = closed.holder.counters()

    closed.answers("S", NEW, OLD)

    counted = closed.holder.counters().since(before)
    assert counted.get("TcpExt.PAWSTimewait", 0) + counted.get("TcpExt.PAWSEstab", 0) == 1


def test_acks_of_rejected_syns_are_limited_to_two_per_second(service, clock):
    """tcp_invalid_ratelimit=500 ms; TCPACKSkippedTimeWait counts the ACKs that are not sent."""
    service.server.pin({"net.ipv4.tcp_rfc1337": 1})     # the client answers unknown segments with an RST
    closed = service.closed()
    before = closed.holder.counters()

    flood = [len(closed.answers("S", OLD)) for _ in range(4)]
    clock.sleep(0.51)
    later = len(closed.answers("S", OLD))

    assert (flood, later) == ([1, 0, 0, 0], 1)
    assert closed.holder.counters().since(before)["TcpExt.TCPACKSkippedTimeWait"] == 3


def test_syn_without_a_listener_does_not_take_over_time_wait(service):
    """The answer is an ACK."""
    closed = service.closed()
    service.listener.close()

    assert [answer.flags for answer in closed.answers("S", NEW, NEW)] == ["A"]
