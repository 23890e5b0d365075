"""Killing the audit daemon releases waiting senders at once and frees its registration."""

import pytest

from netns import TICK, ExpectationFailed, eventually, stopwatch, timer_slack

LIMIT = 8
AT_ONCE = 0.05


def held_sender(audit):
    """A daemon that does not read, and a sender that waits for up to a minute because of it."""
    daemon = audit.full_daemon()
    audit.control.set(backlog_limit=LIMIT, backlog_wait_time=round(60 / TICK))
    sender = audit.process()
    audit.settle(daemon)
    sender.start("users", "burst", LIMIT + 2)
    eventually("process state of the sender", lambda: sender.state, "D", within=0.08, every=0.002)
    return daemon, sender


def test_killing_the_daemon_releases_a_held_sender(audit, measure):
    """The daemon's socket is gone: the delivery ends, and kauditd drains the queue and wakes the sender, which waits until then."""
    daemon, sender = held_sender(audit)
    with pytest.raises(ExpectationFailed):
        sender.finish(within=AT_ONCE)
    with stopwatch() as took:
        daemon.kill()
        sender.finish(within=10)

    assert measure("audit.freed_by_kill_after", took.seconds, "s", timer_slack(0)) < AT_ONCE


def test_new_daemon_can_register_after_the_old_one_was_killed(audit):
    """The kernel notices at the next record: AUDIT_GET has pid 0. A new daemon gets records."""
    daemon, sender = held_sender(audit)
    daemon.kill()
    sender.finish(within=10)

    sender.call("user", "notice")
    eventually("pid of the registered audit daemon", lambda: audit.status().pid, 0, within=5)
    successor = audit.daemon()
    sender.call("user", "to the successor")
    assert successor.call("receive_until", "to the successor")[-1].message == "to the successor"


def test_daemon_blocked_in_unregistering_can_be_killed(audit, measure):
    """While it unregisters with a full buffer it sleeps interruptibly: SIGKILL ends it and releases the mutex."""
    daemon, other = audit.full_daemon(), audit.process()
    daemon.start("unregister")
    eventually("process state of the audit daemon", lambda: daemon.state, "S", within=0.08, every=0.002)
    with pytest.raises(ExpectationFailed):
        daemon.finish(within=0.01)

    with stopwatch() as took:
        daemon.kill()
        other.call("status")

    assert measure("audit.mutex_free_after_kill", took.seconds, "s", timer_slack(0)) < AT_ONCE


def test_held_sender_dies_within_2_seconds_of_sigkill(audit, measure):
    """In state D SIGKILL waits until kauditd releases the process, long before the minute is over. The audit system works on."""
    daemon, sender = held_sender(audit)
    with stopwatch() as took:
        sender.kill()

    assert AT_ONCE < measure("audit.dies_after_sigkill", took.seconds, "s", timer_slack(*[0.1] * 11)) < 2
    assert audit.status().pid == daemon.pid


@pytest.mark.parametrize("enabled", [0, 1], ids=["off", "on"])
def test_killing_a_daemon_with_an_empty_buffer_delays_no_sender(audit, enabled):
    """Five messages after the kill are taken at once, whether audit is on or off; on, the first of them ends its registration."""
    daemon, sender = audit.daemon(), audit.process()
    audit.control.set(enabled=enabled)
    daemon.kill()

    assert max(sender.timed("user", f"message {number}").seconds for number in range(5)) < AT_ONCE
    expected = 0 if enabled else daemon.pid
    eventually("pid of the registered audit daemon", lambda: audit.status().pid, expected, within=5)
