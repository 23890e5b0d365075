"""Readers beside the daemon, on the multicast group READLOG (since 3.16): each gets all records and delays nobody."""

from fixtures.audit import SMALL
from netns import eventually, timer_slack
from netns.attempt import refused

AT_ONCE = 0.05


def collect(reader, last):
    """All messages up to `last`."""
    return [record.message for record in reader.call("receive_until", last) if record.message]


def test_every_multicast_reader_gets_every_record(audit):
    """With a daemon and without: a multicast reader needs no registration."""
    readers, sender = [audit.process(multicast=True) for _ in range(2)], audit.process()
    sender.call("user", "no daemon")
    audit.daemon()
    sender.call("user", "with daemon")

    assert [collect(reader, "with daemon") for reader in readers] == [["no daemon", "with daemon"]] * 2


def test_overrun_multicast_reader_reads_enobufs_once(audit):
    """ENOBUFS, then the records that its buffer held, then the new ones (netlink(7))."""
    reader, sender = audit.process(receive_buffer=SMALL, multicast=True), audit.process()
    sender.call("users", "burst", 20)
    eventually("records dropped at the multicast reader's socket", lambda: reader.call("row").drops > 0, True, within=5)

    with refused("ENOBUFS", "recv() of the multicast reader after its buffer overflowed"):
        reader.call("receive", 5)
    assert "burst-0" in [record.message for record in reader.call("receive")]
    sender.call("user", "afterwards")
    assert collect(reader, "afterwards") == ["afterwards"]


def test_stuck_multicast_reader_delays_nobody(audit, measure):
    """Multicast does not wait for room: senders go on at once, the daemon and the other reader get everything."""
    stuck = audit.process(receive_buffer=SMALL, multicast=True)
    reader, daemon, sender = audit.process(multicast=True), audit.daemon(), audit.process()
    held = sender.call("users", "burst", 40)
    sender.call("user", "last")

    expected = [*(f"burst-{number}" for number in range(40)), "last"]
    assert collect(reader, "last") == expected
    assert collect(daemon, "last") == expected
    assert stuck.call("row").drops > 0
    assert measure("audit.sender_beside_stuck_reader", held, "s", timer_slack(0)) < AT_ONCE


def test_multicast_readers_get_every_record_beside_a_full_daemon(audit):
    """kauditd_send_multicast_skb() runs before the attempt to deliver to the daemon."""
    audit.full_daemon()
    reader, sender = audit.process(multicast=True), audit.process()
    sender.call("users", "burst", 10)

    assert collect(reader, "burst-9") == [f"burst-{number}" for number in range(10)]
