"""Each request to audit while its configuration is locked: auditctl(8), -e 2: "Any attempt to change the configuration in this mode will be
audited and denied." Questions are answered, and messages recorded, as before.
"""

import os
import struct

import pytest

from fixtures.audit import LOCKED
from fixtures.table import Measured, OneOf, Table
from netns import eventually
from netns.attempt import errno_of
from netns.netlink.audit import AUDIT_ADD_RULE, AUDIT_DEL_RULE, AUDIT_GET, AUDIT_MAKE_EQUIV, AUDIT_SET, AUDIT_TRIM, AUDIT_USER, AuditSocket
from netns.netlink.auditrules import AuditRule

KEPT = AuditRule((("msgtype", "=", 2998),), filter_list="user", action="never")
EXE, DIRECTORY, PATH = ("exe", "=", "/bin/sh"), ("dir", "=", "/tmp"), ("path", "=", "/tmp/kdrift")
NEW_RULES = {
    "user": AuditRule((("uid", "=", 4321),), filter_list="user"), "task": AuditRule((("uid", "=", 4321),), filter_list="task"),
    "exit": AuditRule((("uid", "=", 4321),)), "exclude": AuditRule((("msgtype", "=", 2998),), filter_list="exclude"),
    "filesystem": AuditRule((("fstype", "=", 0x74726163),), filter_list="filesystem", action="never"),
}
SET_TO = {"enabled": (0, LOCKED), "failure": (1, 0), "rate_limit": (7, 0), "backlog_limit": (77, 64), "backlog_wait_time": (77, None)}


def setting(**values):
    return AUDIT_SET, AuditSocket.set_payload(values)


def requests(before):
    """By column: the type and the payload. The new values differ from those of this status, the same ones do not."""
    found = {}
    for name, (new, same) in SET_TO.items():
        found[f"{name}, a new value"] = setting(**{name: new})
        found[f"{name}, the same value"] = setting(**{name: getattr(before, name) if same is None else same})
    found.update((f"a new rule of the list {name}", (AUDIT_ADD_RULE, rule.pack())) for name, rule in NEW_RULES.items())
    found.update((f"a new rule with {field[0]}", (AUDIT_ADD_RULE, AuditRule((field,)).pack())) for field in (EXE, DIRECTORY, PATH))
    found.update({
        "a rule that is there, again": (AUDIT_ADD_RULE, KEPT.pack()), "deleting a rule": (AUDIT_DEL_RULE, KEPT.pack()),
        "deleting a rule that is not there": (AUDIT_DEL_RULE, NEW_RULES["exit"].pack()),
        "trim": (AUDIT_TRIM, b""), "make equivalent": (AUDIT_MAKE_EQUIV, struct.pack("=II", 4, 4) + b"/tmp/tmp"),
        "registering a daemon": setting(pid=os.getpid()), "clearing lost": setting(lost=0),
        "clearing backlog_wait_time_actual": setting(backlog_wait_time_actual=0),
        "locking a feature": (1018, struct.pack("=4I", 1, 1, 0, 1)), "TTY_SET": (1017, struct.pack("=II", 0, 0)),
        "status": (AUDIT_GET, b""), "rules": (1013, b""), "features": (1019, b""), "TTY_GET": (1016, b""), "SIGNAL_INFO": (1010, b""),
        "a message": (AUDIT_USER, b"hello\0"), "a message of 2100 to 2999": (2100, b"hello\0"), "a type of nobody": (1099, b""),
    })
    return found


ANSWERED = ("status", "rules", "features", "TTY_GET", "SIGNAL_INFO", "a message", "a message of 2100 to 2999")
UNSAID = {"registering a daemon": "a daemon must be able to start again", "clearing lost": "a counter", "TTY_SET": "of one process",
          "clearing backlog_wait_time_actual": "a counter", "locking a feature": "features have locks of their own"}


def cell(column):
    if column in ANSWERED:
        return "done"
    if column in UNSAID:
        return Measured(f"auditctl(8) does not say whether it is part of the configuration: {UNSAID[column]}")
    if column == "a type of nobody":
        return "EINVAL"
    if "the same" in column:
        return OneOf(("EPERM", "done"), "it changes nothing")
    if column in ("a rule that is there, again", "deleting a rule that is not there"):
        return OneOf(("EPERM", "EEXIST", "ENOENT"), "it would be refused anyway")
    return "EPERM"


class Initial:
    """In place of a status, for the columns."""

    backlog_wait_time = 0


REQUESTS = Table("auditlock.requests", "configuration", "request", "auditctl(8), -e 2", {
    "locked": {**{column: cell(column) for column in requests(Initial)}, "the status afterwards": "unchanged"},
})


def outcome(control, kind, payload):
    answer = errno_of(control.request, kind, payload)
    return answer if isinstance(answer, str) else "done"


def settled(control):
    """The status, without the counters and the daemon, once kauditd has emptied the backlog."""
    eventually("records in the audit backlog", lambda: control.status().backlog, 0, within=10)
    status = control.status()
    return {name: getattr(status, name) for name in SET_TO}


@pytest.mark.last("a locked configuration stays locked until the next boot")
@pytest.mark.virtual_clock("locks the audit configuration until the next boot: needs its own machine")
@pytest.mark.table(REQUESTS)
@pytest.mark.parametrize("row", REQUESTS.rows)
def test_locked_configuration_denies_changes_and_answers_questions(row, table):
    """EPERM for what changes settings, rules and watched trees; kernels without "audit: enforce AUDIT_LOCKED for AUDIT_TRIM and
    AUDIT_MAKE_EQUIV" still change trees. Whether the other test has locked it already does not matter."""
    control = AuditSocket()
    if control.status().enabled != LOCKED:
        control.request(AUDIT_ADD_RULE, KEPT.pack())
        control.set(failure=0, rate_limit=0, backlog_limit=64)
        control.set(enabled=LOCKED)
    before = settled(control)
    messages = requests(control.status())

    for column in table:
        if column in messages:
            table.saw(outcome(control, *messages[column]))
        else:
            table.saw("unchanged" if settled(control) == before else "changed")
