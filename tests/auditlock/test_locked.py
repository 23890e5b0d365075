"""enabled=2 locks the audit configuration until the next boot: auditctl(8), -e 2."""

import os
import struct

import pytest

from fixtures.audit import LOCKED
from netns import eventually
from netns.attempt import errno_name
from netns.netlink.audit import AUDIT_MAKE_EQUIV, AUDIT_TRIM, AuditSocket

CAPSET, CAPGET = 126, 125                   # on x86-64; any two system calls would do


def refusal(change):
    try:
        change()
    except OSError as error:
        return errno_name(error.errno)
    return "accepted"


def settled(control):
    """The status once kauditd has emptied the backlog."""
    eventually("records in the audit backlog", lambda: control.status().backlog, 0, within=10)
    return control.status()


@pytest.mark.last("a locked configuration stays locked until the next boot")
@pytest.mark.virtual_clock("locks the audit configuration until the next boot: needs its own machine")
def test_a_locked_configuration_refuses_every_change():
    """EPERM for settings, rules and watched trees; the configuration stays. Kernels without "audit: enforce
    AUDIT_LOCKED for AUDIT_TRIM and AUDIT_MAKE_EQUIV" still change trees."""
    control = AuditSocket()
    control.add_rule(CAPSET, os.getpid())
    control.set(failure=0)
    control.set(enabled=LOCKED)
    before = settled(control)
    changes = {
        "enabled": lambda: control.set(enabled=0),
        "failure": lambda: control.set(failure=1),
        "rate_limit": lambda: control.set(rate_limit=before.rate_limit + 1),
        "backlog_limit": lambda: control.set(backlog_limit=before.backlog_limit + 1),
        "backlog_wait_time": lambda: control.set(backlog_wait_time=before.backlog_wait_time + 1),
        "a new rule": lambda: control.add_rule(CAPGET, os.getpid()),
        "a rule taken back": lambda: control.delete_rule(CAPSET, os.getpid()),
        "trim": lambda: control.request(AUDIT_TRIM, b""),
        "make equivalent": lambda: control.request(AUDIT_MAKE_EQUIV, struct.pack("=II", 4, 4) + b"/tmp/tmp"),
    }

    seen = {what: refusal(change) for what, change in changes.items()}

    assert seen == dict.fromkeys(changes, "EPERM")
    assert settled(control) == before
