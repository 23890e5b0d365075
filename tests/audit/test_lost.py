"""Records that cannot be kept: how they are counted, and what the failure mode makes of it (auditctl(8), -f)."""

from contextlib import contextmanager

import pytest

from netns import TICK, eventually
from netns.attempt import refused
from netns.netlink.audit import FAIL_PANIC, FAIL_PRINTK, FAIL_SILENT
from netns.observe.kmsg import KernelLog

LIMIT = 8


@contextmanager
def kernel_log():
    """A function that gives the lines that the kernel has logged within the block so far."""
    lines = []
    with KernelLog() as log:
        def so_far():
            lines.extend(record.text for record in log.records())
            return lines

        yield so_far


def lose_one(audit):
    """One record of the kernel itself finds the backlog too long, and may not wait: the daemon that is to blame, and
    how many were lost before."""
    daemon = audit.full_daemon()
    audit.control.set(backlog_limit=LIMIT, backlog_wait_time=0)
    crowd, login = audit.process(), audit.process()
    audit.settle(daemon)
    before = audit.status().lost
    crowd.call("users", "burst", LIMIT + 2)
    login.call("log_in")
    # Others follow once the first attempt to deliver has failed, after 100 ms, and leave no room for retries.
    return daemon, before


def test_a_lost_record_is_counted(audit):
    """The counter of AUDIT_GET grows by one."""
    _daemon, before = lose_one(audit)

    assert audit.status().lost == before + 1


def test_the_lost_counter_is_read_and_cleared_at_once(audit):
    """Setting AUDIT_STATUS_LOST answers with the count so far, and the next reading is 0."""
    daemon, _before = lose_one(audit)
    audit.settle(daemon)
    counted = audit.status().lost

    assert audit.control.set(lost=0) == counted > 0
    assert audit.status().lost == 0


def test_more_than_the_rate_limit_is_lost_and_counted(audit):
    """Of 50 messages in a moment less than twice rate_limit get through: the count starts anew when it is first looked
    at after a second (audit_rate_check()). Each of the others is counted as lost."""
    daemon, sender = audit.daemon(), audit.process()
    before = audit.status().lost
    audit.control.set(rate_limit=10)
    sender.call("users", "burst", 50)

    # The rate is counted in whole seconds: this one comes when the burst is over and everything before it is delivered.
    audit.control.set(rate_limit=0)
    sender.call("user", "last")
    delivered = sum("burst" in record.text for record in daemon.call("receive_until", "last"))
    lost = audit.status().lost - before
    assert 1 <= delivered < 20
    # Each change of the limit makes a record of its own, of up to four parts, which the rate limit counts too.
    assert 50 - delivered <= lost <= 58 - delivered


def test_the_rate_limit_is_for_a_second(audit, clock):
    """A message 0.7 s after the limit was reached is lost like those before; half a second later the count has started
    anew."""
    audit.daemon()
    sender = audit.process()
    audit.control.set(rate_limit=10)

    def lost_of_one():
        before = audit.status().lost
        sender.call("users", "one", 1)
        return audit.status().lost - before

    # The second that the change of the limit began is over: the burst begins one of its own.
    clock.sleep(1.5)
    sender.call("users", "burst", 20)
    clock.sleep(0.7)
    assert lost_of_one() == 1
    clock.sleep(0.5)
    assert lost_of_one() == 0


@pytest.mark.parametrize("mode, reasons", [(FAIL_SILENT, 0), (FAIL_PRINTK, 1)], ids=["silent", "printk"])
def test_the_failure_mode_decides_whether_the_reason_is_logged(audit, mode, reasons):
    """The new count is logged in either mode, the reason in mode 1 alone (audit_panic())."""
    audit.control.set(failure=mode)
    with kernel_log() as lines:
        lose_one(audit)

        eventually("whether the kernel's log has audit_lost=", lambda: any("audit_lost=" in line for line in lines()), True, within=5)
        assert sum(line.endswith("backlog limit exceeded") for line in lines()) == reasons


def test_failure_modes_beyond_panic_do_not_exist(audit):
    """0, 1 and 2 are accepted, 3 is EINVAL and changes nothing. Audit is off meanwhile: a loss would be a panic."""
    audit.control.set(enabled=0)
    for mode in (FAIL_SILENT, FAIL_PANIC, FAIL_PRINTK):
        audit.control.set(failure=mode)
        assert audit.status().failure == mode

    with refused("EINVAL", "setting failure to 3"):
        audit.control.set(failure=3)
    assert audit.status().failure == FAIL_PRINTK


def test_the_wait_time_is_limited_to_ten_minutes(audit):
    """Ten times the default of 60 s is accepted, a jiffy more is EINVAL: nobody can be held for longer."""
    most = round(600 / TICK)
    audit.control.set(backlog_wait_time=most)
    with refused("EINVAL", "setting backlog_wait_time above the most"):
        audit.control.set(backlog_wait_time=most + 1)

    assert audit.status().backlog_wait_time == most


def test_what_is_logged_while_audit_is_off_is_neither_sent_nor_lost(audit):
    """The sender gets its acknowledgement (a program must not fail for it), and the daemon only what comes after."""
    daemon, sender = audit.daemon(), audit.process()
    before = audit.status().lost
    audit.control.set(enabled=0)
    sender.call("user", "while off")
    audit.control.set(enabled=1)
    sender.call("user", "while on")

    assert "while off" not in [record.message for record in daemon.call("receive_until", "while on")]
    assert audit.status().lost == before
