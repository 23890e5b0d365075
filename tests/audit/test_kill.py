"""What the end of a daemon frees: everybody who waits for it, at once, and its place."""

import pytest

from netns import TICK, NotMet, eventually, stopwatch, timer_slack

LIMIT = 8
AT_ONCE = 0.05


def held_sender(audit):
    """A sender that waits, for up to a minute, because of a daemon that does not read: the daemon and the sender."""
    daemon = audit.full_daemon()
    audit.control.set(backlog_limit=LIMIT, backlog_wait_time=round(60 / TICK))
    sender = audit.process()
    audit.settle(daemon)
    sender.start("users", "burst", LIMIT + 2)
    eventually("process state of the sender", lambda: sender.state, "D", within=0.08, every=0.002)
    return daemon, sender


def test_a_kill_of_the_daemon_frees_the_held_sender(audit, measure):
    """Its socket is gone, the attempt to deliver ends, the queue is put aside and the sender goes on."""
    daemon, sender = held_sender(audit)
    with stopwatch() as took:
        daemon.kill()
        sender.finish(within=10)

    assert measure("audit.freed_by_kill_after", took.seconds, "s", timer_slack(0)) < AT_ONCE


def test_after_a_kill_the_place_is_free(audit):
    """The next record notices; AUDIT_GET then names nobody, and a new daemon gets what comes."""
    daemon, sender = held_sender(audit)
    daemon.kill()
    sender.finish(within=10)

    sender.call("user", "notice")
    eventually("pid of the registered audit daemon", lambda: audit.status().pid, 0, within=5)
    successor = audit.daemon()
    sender.call("user", "to the successor")
    assert successor.call("receive_until", "to the successor")[-1].message == "to the successor"


def test_a_daemon_that_waits_for_itself_can_be_killed(audit, measure):
    """While it unregisters with a full buffer it sleeps interruptibly: SIGKILL ends it and gives the mutex back."""
    daemon, other = audit.full_daemon(), audit.process()
    daemon.start("unregister")
    eventually("process state of the audit daemon", lambda: daemon.state, "S", within=0.08, every=0.002)
    with pytest.raises(NotMet):
        daemon.finish(within=0.01)

    with stopwatch() as took:
        daemon.kill()
        other.call("status")

    assert measure("audit.mutex_free_after_kill", took.seconds, "s", timer_slack(0)) < AT_ONCE


def test_a_held_sender_is_not_killed_before_its_time(audit):
    """In state D a SIGKILL waits: the process is gone when the kernel's thread has let it go, and that is long
    before the minute is over."""
    _daemon, sender = held_sender(audit)
    with stopwatch() as took:
        sender.kill()

    assert took.seconds < 2
    assert audit.status().backlog_limit == LIMIT


@pytest.mark.parametrize("enabled", [0, 1], ids=["off", "on"])
def test_a_kill_of_a_reading_daemon_costs_nobody_anything(audit, enabled):
    """Messages are taken at once before and after, whether audit is on or off."""
    daemon, sender = audit.daemon(), audit.process()
    audit.control.set(enabled=enabled)
    daemon.kill()

    assert max(sender.timed("user", f"message {number}").seconds for number in range(5)) < AT_ONCE
