"""Lost records: how they are counted, and what the failure mode does (auditctl(8), -f)."""

from contextlib import contextmanager

import pytest

from netns import TICK, eventually
from netns.attempt import refused
from netns.netlink.audit import FAIL_PANIC, FAIL_PRINTK, FAIL_SILENT
from netns.observe.kmsg import KernelLog

LIMIT = 8


@contextmanager
def kernel_log():
    """A function that returns the lines that the kernel has logged so far within the block."""
    lines = []
    with KernelLog() as log:
        def lines_so_far():
            lines.extend(record.text for record in log.records())
            return lines

        yield lines_so_far


def lose_one(audit):
    """Lose a record of the kernel's own: the backlog is over the limit, and it may not wait. Returns the daemon, and
    how many were lost before."""
    daemon = audit.full_daemon()
    audit.control.set(backlog_limit=LIMIT, backlog_wait_time=0)
    crowd, login = audit.process(), audit.process()
    audit.settle(daemon)
    before = audit.status().lost
    crowd.call("users", "burst", LIMIT + 2)
    login.call("log_in")
    # More follow after 100 ms, when the first delivery has failed and the retry queue is full.
    return daemon, before


def test_a_lost_record_is_counted(audit):
    """`lost` of AUDIT_GET grows by one."""
    _daemon, before = lose_one(audit)

    assert audit.status().lost == before + 1


def test_setting_lost_returns_the_counter_and_clears_it(audit):
    """AUDIT_STATUS_LOST answers with the count so far; the next AUDIT_GET returns 0."""
    daemon, _before = lose_one(audit)
    audit.settle(daemon)
    counted = audit.status().lost

    assert audit.control.set(lost=0) == counted > 0
    assert audit.status().lost == 0


def test_messages_over_rate_limit_are_lost_and_counted(audit):
    """Of a burst of 50 less than twice rate_limit get through: the count restarts at the first check after a second
    (audit_rate_check()). Each of the others counts as lost."""
    daemon, sender = audit.daemon(), audit.process()
    before = audit.status().lost
    audit.control.set(rate_limit=10)
    sender.call("users", "burst", 50)

    # The rate is counted in whole seconds. Without the limit this message gets through, behind all others.
    audit.control.set(rate_limit=0)
    sender.call("user", "last")
    delivered = sum("burst" in record.text for record in daemon.call("receive_until", "last"))
    lost = audit.status().lost - before
    assert 1 <= delivered < 20
    # Each change of the limit makes a record too, of up to four parts, which count against the limit.
    assert 50 - delivered <= lost <= 58 - delivered


def test_rate_limit_count_restarts_after_a_second(audit, clock):
    """A message 0.7 s after the limit was reached is lost; half a second later one gets through."""
    audit.daemon()
    sender = audit.process()
    audit.control.set(rate_limit=10)

    def lost_of_one_message():
        before = audit.status().lost
        sender.call("users", "one", 1)
        return audit.status().lost - before

    # The second that began with the change of the limit is over: the burst begins a new one.
    clock.sleep(1.5)
    sender.call("users", "burst", 20)
    clock.sleep(0.7)
    assert lost_of_one_message() == 1
    clock.sleep(0.5)
    assert lost_of_one_message() == 0


@pytest.mark.parametrize("mode, reasons", [(FAIL_SILENT, 0), (FAIL_PRINTK, 1)], ids=["silent", "printk"])
def test_reason_of_a_loss_is_logged_in_failure_mode_printk_only(audit, mode, reasons):
    """The new count is logged in both modes, the reason in mode 1 only (audit_panic())."""
    audit.control.set(failure=mode)
    with kernel_log() as lines:
        lose_one(audit)

        eventually("audit_lost= in the kernel's log", lambda: any("audit_lost=" in line for line in lines()), True, within=5)
        assert sum(line.endswith("backlog limit exceeded") for line in lines()) == reasons


def test_failure_modes_0_to_2_are_accepted_and_3_is_refused(audit):
    """3 is EINVAL and changes nothing. Audit is off meanwhile: in mode 2 a loss would panic."""
    audit.control.set(enabled=0)
    for mode in (FAIL_SILENT, FAIL_PANIC, FAIL_PRINTK):
        audit.control.set(failure=mode)
        assert audit.status().failure == mode

    with refused("EINVAL", "setting failure to 3"):
        audit.control.set(failure=3)
    assert audit.status().failure == FAIL_PRINTK


def test_backlog_wait_time_is_limited_to_ten_minutes(audit):
    """Ten times the default of 60 s is accepted, one jiffy more is EINVAL."""
    most = round(600 / TICK)
    audit.control.set(backlog_wait_time=most)
    with refused("EINVAL", "setting backlog_wait_time above its maximum"):
        audit.control.set(backlog_wait_time=most + 1)

    assert audit.status().backlog_wait_time == most


def test_messages_sent_while_audit_is_off_are_neither_delivered_nor_lost(audit):
    """The sender gets its ACK (a program must not fail for it), the daemon only what comes after."""
    daemon, sender = audit.daemon(), audit.process()
    before = audit.status().lost
    audit.control.set(enabled=0)
    sender.call("user", "while off")
    audit.control.set(enabled=1)
    sender.call("user", "while on")

    assert "while off" not in [record.message for record in daemon.call("receive_until", "while on")]
    assert audit.status().lost == before
