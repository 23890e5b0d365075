"""More records than backlog_limit wait for a daemon that does not read: senders are slowed down, for a limited time.

Source: audit_log_start() and the end of audit_receive() in kernel/audit.c, auditctl(8) -b and --backlog_wait_time.
"""

import pytest

from netns import TICK, approx_timer, eventually, timer_slack

LIMIT = 8
AT_ONCE = 0.05
# Each attempt to hand over a record takes 100 ms: five for the oldest kept for a daemon to come (with audit=1 only),
# five for the oldest that failed before, one for the next.
ONE_ROUND = [0.1] * 11


def jiffies(seconds):
    return round(seconds / TICK)


@pytest.fixture
def full(audit):
    """A daemon that does not read, and a limit that a few records exceed."""
    daemon = audit.full_daemon()
    audit.control.set(backlog_limit=LIMIT)
    audit.settle(daemon)
    return daemon


def test_a_sender_is_held_until_the_queue_was_dealt_with(audit, full, measure):
    """The kernel's thread tries 6 times (11 with audit=1), puts the queue aside and wakes the sender, long
    before the 60 s."""
    audit.control.set(backlog_wait_time=jiffies(60))
    sender = audit.process()

    held = sender.call("users", "burst", LIMIT + 2)

    assert AT_ONCE < measure("audit.held_by_backlog", held, "s", timer_slack(*ONE_ROUND)) <= approx_timer(*ONE_ROUND).most


def test_a_sender_is_held_no_longer_than_the_wait_time(audit, full, measure):
    """50 ms, as backlog_wait_time says, and not the 600 ms that the queue takes."""
    audit.control.set(backlog_wait_time=jiffies(0.05))
    sender = audit.process()

    held = sender.call("users", "burst", LIMIT + 2)

    assert measure("audit.held_for_wait_time", held, "s", timer_slack(0.05)) == approx_timer(0.05)


def test_no_wait_time_holds_nobody(audit, full):
    """backlog_wait_time 0: the same burst goes through at once."""
    audit.control.set(backlog_wait_time=0)
    sender = audit.process()

    assert sender.call("users", "burst", LIMIT + 2) < AT_ONCE


def test_no_limit_holds_nobody(audit, full):
    """backlog_limit 0 stands for no limit: 100 records, none held and none lost."""
    audit.control.set(backlog_wait_time=jiffies(60), backlog_limit=0)
    sender, lost = audit.process(), audit.status().lost

    assert sender.call("users", "burst", 100) < AT_ONCE
    assert audit.status().lost == lost


def test_a_held_sender_cannot_be_interrupted_but_is_let_go(audit, full):
    """State D while it waits; that ends by itself."""
    audit.control.set(backlog_wait_time=jiffies(60))
    sender = audit.process()
    sender.start("users", "burst", LIMIT + 2)

    eventually("process state of the sender", lambda: sender.state, "D", within=0.08, every=0.002)

    sender.finish(within=2)


def test_records_of_the_kernel_itself_are_held_and_then_lost(audit, full, measure):
    """A login while the queue is too long: the process waits for backlog_wait_time, the wait is added up in
    backlog_wait_time_actual, and the record is counted as lost."""
    audit.control.set(backlog_wait_time=0)
    crowd, login = audit.process(), audit.process()
    audit.settle(full)
    before = audit.status()
    crowd.call("users", "burst", LIMIT + 2)
    audit.control.set_without_answer(backlog_wait_time=jiffies(0.05))

    held = login.timed("log_in").seconds

    # After the 100 ms of the first attempt others may be lost too, for want of room in the queue for retries.
    after = audit.status()
    assert measure("audit.login_held", held, "s", timer_slack(0.05)) == approx_timer(0.05)
    assert after.lost > before.lost
    waited = (after.backlog_wait_time_actual - before.backlog_wait_time_actual) * TICK
    assert approx_timer(0.05).least <= waited < 0.1 + held


def test_the_daemons_own_records_are_never_held(audit, full):
    """It could not read while it waits: its login goes through at once, while another's is held."""
    audit.control.set(backlog_wait_time=jiffies(60))
    crowd, other = audit.process(), audit.process()
    crowd.start("users", "burst", LIMIT + 2)
    eventually("process state of the sender of many records", lambda: crowd.state, "D", within=0.08, every=0.002)
    other.start("log_in")
    eventually("process state of the other sender", lambda: other.state, "D", within=0.08, every=0.002)

    assert full.timed("log_in").seconds < AT_ONCE

    for process in (crowd, other):
        process.finish(within=120)


@pytest.mark.virtual_clock("the default wait time is a minute")
def test_many_held_senders_are_all_free_within_a_minute(audit, full, measure):
    """Five senders at the default of 60 s; they wait exclusively, so that each round of the kernel's thread wakes one,
    and the last may have to wait for all of its time, but nobody for longer."""
    audit.control.set(backlog_wait_time=jiffies(60))
    senders = [audit.process() for _ in range(5)]
    for sender in senders:
        sender.start("users", "burst", LIMIT + 2)

    held = [sender.finish(within=600).value for sender in senders]

    assert measure("audit.first_of_five_held", min(held), "s", timer_slack(*ONE_ROUND)) > AT_ONCE
    assert measure("audit.last_of_five_held", max(held), "s", timer_slack(60)) <= approx_timer(60).most
    eventually("process states of the senders", lambda: [sender.state for sender in senders], ["S"] * 5, within=5)
