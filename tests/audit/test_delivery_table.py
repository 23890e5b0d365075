"""Records that programs send while the audit daemon cannot take them: each is delivered later, or counted as lost.

Source: auditctl(8), -s: "The lost field tells how many event records that have been discarded due to the kernel audit queue overflowing";
with audit=1 the kernel holds records for the next daemon (audit_hold_queue in kernel/audit.c).
"""

from pathlib import Path

import pytest

from fixtures.audit import HOLDS_RECORDS
from fixtures.table import OneOf, Table

COUNTS = {"1 message": 1, "5 messages": 5, "20 messages": 20, "20 messages at once": 20}
DELIVERED, COUNTED = "all delivered", "each delivered or counted"
EITHER = OneOf((DELIVERED, COUNTED), "the kernel holds records as long as the backlog limit allows it")
STATES = {
    "reads": DELIVERED, "has not read yet": DELIVERED, "is full, then reads": EITHER, "is full, then is killed": EITHER,
    "is full, then unregisters": EITHER, "is not there": EITHER, "was killed": EITHER, "has closed its socket": EITHER,
}
DELIVERY = Table("audit.delivery", "the daemon", "messages", "auditctl(8), -s",
                 {state: dict.fromkeys(COUNTS, expected) for state, expected in STATES.items()})


def started(audit, state):
    """The daemon in its state; None if there is none."""
    if state == "is not there":
        return None
    if state.startswith("is full"):
        return audit.full_daemon()
    daemon = audit.daemon(1 << 20)
    if state == "was killed":
        daemon.kill()
    elif state == "has closed its socket":
        daemon.call("close")
    return daemon


def everything(daemon):
    """What the daemon's buffer holds, also after it has overflowed."""
    try:
        return daemon.call("receive")
    except OSError:
        return daemon.call("receive")


def recovered(audit, state, daemon):
    """A daemon that reads: the same, or another."""
    if state in ("reads", "has not read yet", "is full, then reads"):
        return daemon
    if state == "is full, then is killed":
        daemon.kill()
    elif state == "is full, then unregisters":
        daemon.call("unregister")
    return audit.daemon(1 << 20)


def account(audit, state, count, at_once):
    """What has become of this many messages."""
    daemon, sender = started(audit, state), audit.process()
    read, before = [], audit.status().lost
    for number in range(count):
        sender.call("user", f"message {number}")
        if state.startswith("is full") and not at_once:
            audit.settle(daemon)
        if state == "reads":
            read += daemon.call("receive_until", f"message {number}")
    if state.startswith("is full"):
        audit.settle(daemon)
    reader = recovered(audit, state, daemon)
    if state == "is full, then reads":
        read += everything(daemon)
    sender.call("user", "last")
    read += reader.call("receive_until", "last")
    reader.call("unregister")
    delivered = len({record.message for record in read} & {f"message {number}" for number in range(count)})
    lost = audit.status().lost - before
    reader.kill()
    if delivered == count and not lost:
        return DELIVERED
    return COUNTED if delivered + lost >= count else f"{count - delivered - lost} neither delivered nor counted"


@pytest.mark.table(DELIVERY)
@pytest.mark.parametrize("row", DELIVERY.rows)
def test_every_message_is_delivered_or_counted_as_lost_in_the_end(audit, row, table):
    """Each cell has a daemon and a sender of its own. Other records may be lost with the messages, so that more may be counted."""
    if HOLDS_RECORDS not in Path("/proc/cmdline").read_text().split():
        pytest.skip(f"needs {HOLDS_RECORDS} on the kernel's command line")
    for column in table:
        table.saw(account(audit, row, COUNTS[column], "at once" in column))
