"""A registered daemon that does not read, its receive buffer full: who waits, and for how long.

The kernel tries for 100 ms to deliver a message (sk_sndtimeo, audit_net_init() in kernel/audit.c). Kernels of the 5.4
era waited without limit, with the audit mutex held: a deadlock.
"""

from pathlib import Path

import pytest

from fixtures.audit import HOLDS_RECORDS
from netns import approx_timer, eventually, timer_slack
from netns.attempt import refused

# Seconds for a call that does not wait, under emulation; a wait for delivery takes 0.1.
AT_ONCE = 0.05


def test_daemon_with_a_full_buffer_unregisters_in_100_ms(audit, measure):
    """The kernel asks the daemon whether it is alive, and the message finds no room; then it is unregistered."""
    daemon = audit.full_daemon()
    drops = daemon.call("row").drops

    reply = daemon.timed("unregister")

    assert measure("audit.unregister_held", reply.seconds, "s", timer_slack(0.1)) == approx_timer(0.1)
    assert audit.status().pid == 0
    assert daemon.call("row").drops > drops


def test_overrun_daemon_reads_enobufs_once(audit):
    """At the next read (netlink(7)); then what its buffer held."""
    daemon = audit.full_daemon()
    with refused("ENOBUFS", "recv() of the audit daemon after its buffer overflowed"):
        daemon.call("receive", 5)

    assert len(daemon.call("receive")) > 1


def test_senders_wait_at_most_100_ms_while_a_full_daemon_unregisters(audit, measure):
    """The mutex is held for the 100 ms; a sender such as sudo waits for it in state D."""
    daemon, sender = audit.full_daemon(), audit.process()
    daemon.start("unregister")
    eventually("process state of the audit daemon", lambda: daemon.state, "S", within=0.08, every=0.002)

    sender.start("user", "as sudo")
    eventually("process state of the sender", lambda: sender.state, "D", within=0.08, every=0.002)

    held = sender.finish(within=10).seconds
    daemon.finish(within=10)
    assert 0 < measure("audit.sender_behind_unregister", held, "s", timer_slack(0.1)) <= approx_timer(0.1).most


def test_senders_below_the_backlog_limit_are_not_held(audit, measure):
    """Records are queued, and only kauditd waits: ten messages, each acknowledged at once."""
    audit.full_daemon()
    sender = audit.process()

    held = max(sender.timed("user", f"as sudo {number}").seconds for number in range(10))

    assert measure("audit.sender_to_full_daemon", held, "s", timer_slack(0)) < AT_ONCE


def test_audit_get_does_not_wait_for_a_full_daemon(audit):
    """The reply to another process does not wait for the daemon's buffer."""
    daemon, other = audit.full_daemon(), audit.process()
    audit.process().call("users", "in delivery", 5)

    reply = other.timed("status")

    assert reply.value.pid == daemon.pid
    assert reply.seconds < AT_ONCE


def test_undelivered_record_is_retried_before_the_next_one(audit):
    """It is kept for a retry, which the next record triggers; the order stays (audit_retry_queue)."""
    daemon, sender = audit.full_daemon(), audit.process()
    drops = daemon.call("row").drops
    sender.call("user", "first")
    audit.settle(daemon)
    assert daemon.call("row").drops > drops
    daemon.call("drain")

    sender.call("user", "second")

    messages = [record.message for record in daemon.call("receive_until", "second")]
    assert messages[-2:] == ["first", "second"]


def test_every_record_is_delivered_or_counted_as_lost(audit):
    """With audit=1 on the command line a record is retried or counted as lost; without it one that failed five times is
    dropped and not counted (audit_default in kauditd_hold_skb())."""
    if HOLDS_RECORDS not in Path("/proc/cmdline").read_text().split():
        pytest.skip(f"needs {HOLDS_RECORDS} on the kernel's command line")
    daemon, sender = audit.full_daemon(), audit.process()
    daemon.call("drain")
    before = audit.status().lost
    for number in range(20):
        sender.call("user", f"record {number}")
        audit.settle(daemon)
    daemon.call("drain")
    sender.call("user", "last")

    delivered = [record.message for record in daemon.call("receive_until", "last")]
    lost = audit.status().lost - before
    assert sum(f"record {number}" in delivered for number in range(20)) + lost == 20, f"{lost} records lost, delivered: {delivered}"
