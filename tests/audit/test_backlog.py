"""The backlog exceeds backlog_limit because the daemon does not read: senders wait, for a limited time.

Source: audit_log_start() and the end of audit_receive() in kernel/audit.c, auditctl(8) -b and --backlog_wait_time.
"""

import pytest

from netns import TICK, approx_timer, eventually, timer_slack

LIMIT = 8
AT_ONCE = 0.05
# Each attempt to deliver a record takes 100 ms: five for the oldest in the hold queue (with audit=1 only), five for
# the oldest in the retry queue, one for the next.
ONE_ROUND = [0.1] * 11


def jiffies(seconds):
    return round(seconds / TICK)


@pytest.fixture
def stalled_daemon(audit):
    """A daemon that does not read, and a limit that a few records exceed."""
    daemon = audit.full_daemon()
    audit.control.set(backlog_limit=LIMIT)
    audit.settle(daemon)
    return daemon


def test_sender_over_the_backlog_limit_waits_for_one_round_of_kauditd(audit, stalled_daemon, measure):
    """kauditd tries 6 times (11 with audit=1), drains the queue and wakes the sender, long before the 60 s."""
    audit.control.set(backlog_wait_time=jiffies(60))
    sender = audit.process()

    held = sender.call("users", "burst", LIMIT + 2)

    assert AT_ONCE < measure("audit.held_by_backlog", held, "s", timer_slack(*ONE_ROUND)) <= approx_timer(*ONE_ROUND).most


def test_sender_waits_no_longer_than_backlog_wait_time(audit, stalled_daemon, measure):
    """50 ms, not the 600 ms that kauditd takes."""
    audit.control.set(backlog_wait_time=jiffies(0.05))
    sender = audit.process()

    held = sender.call("users", "burst", LIMIT + 2)

    assert measure("audit.held_for_wait_time", held, "s", timer_slack(0.05)) == approx_timer(0.05)


def test_backlog_wait_time_0_holds_no_sender(audit, stalled_daemon):
    """The same burst goes through at once."""
    audit.control.set(backlog_wait_time=0)
    sender = audit.process()

    assert sender.call("users", "burst", LIMIT + 2) < AT_ONCE


def test_backlog_limit_0_means_no_limit(audit, stalled_daemon):
    """Of 100 records none is held and none lost."""
    audit.control.set(backlog_wait_time=jiffies(60), backlog_limit=0)
    sender, lost = audit.process(), audit.status().lost

    assert sender.call("users", "burst", 100) < AT_ONCE
    assert audit.status().lost == lost


def test_held_sender_is_uninterruptible_and_released_within_2_seconds(audit, stalled_daemon):
    """State D while it waits."""
    audit.control.set(backlog_wait_time=jiffies(60))
    sender = audit.process()
    sender.start("users", "burst", LIMIT + 2)

    eventually("process state of the sender", lambda: sender.state, "D", within=0.08, every=0.002)

    sender.finish(within=2)


def test_kernel_record_waits_backlog_wait_time_and_is_lost(audit, stalled_daemon, measure):
    """A login over the backlog limit: the process waits for backlog_wait_time, the wait is added to
    backlog_wait_time_actual, and the record counts as lost."""
    audit.control.set(backlog_wait_time=0)
    crowd, login = audit.process(), audit.process()
    audit.settle(stalled_daemon)
    before = audit.status()
    crowd.call("users", "burst", LIMIT + 2)
    audit.control.set_unacknowledged(backlog_wait_time=jiffies(0.05))

    held = login.timed("log_in").seconds

    # After the 100 ms of the first attempt others may be lost too: the retry queue is full.
    after = audit.status()
    assert measure("audit.login_held", held, "s", timer_slack(0.05)) == approx_timer(0.05)
    assert after.lost > before.lost
    waited = (after.backlog_wait_time_actual - before.backlog_wait_time_actual) * TICK
    assert approx_timer(0.05).least <= waited < 0.1 + held


def test_the_audit_daemons_own_records_are_never_held(audit, stalled_daemon):
    """A held daemon could not read: its login goes through at once, while another's is held."""
    audit.control.set(backlog_wait_time=jiffies(60))
    crowd, other = audit.process(), audit.process()
    crowd.start("users", "burst", LIMIT + 2)
    eventually("process state of the sender of many records", lambda: crowd.state, "D", within=0.08, every=0.002)
    other.start("log_in")
    eventually("process state of the second sender", lambda: other.state, "D", within=0.08, every=0.002)

    assert stalled_daemon.timed("log_in").seconds < AT_ONCE

    for process in (crowd, other):
        process.finish(within=120)


@pytest.mark.virtual_clock("waits 60 s, the default backlog_wait_time")
def test_five_held_senders_are_all_released_within_a_minute(audit, stalled_daemon, measure):
    """Five senders at the default of 60 s. They wait exclusively: each round of kauditd wakes one, and the last may
    wait the full time, but no longer."""
    audit.control.set(backlog_wait_time=jiffies(60))
    senders = [audit.process() for _ in range(5)]
    for sender in senders:
        sender.start("users", "burst", LIMIT + 2)

    held = [sender.finish(within=600).value for sender in senders]

    assert measure("audit.first_of_five_held", min(held), "s", timer_slack(*ONE_ROUND)) > AT_ONCE
    assert measure("audit.last_of_five_held", max(held), "s", timer_slack(60)) <= approx_timer(60).most
    eventually("process states of the senders", lambda: [sender.state for sender in senders], ["S"] * 5, within=5)
