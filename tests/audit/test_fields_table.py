"""Each field of a rule with each operator: which operators it takes, and which values they match.

Source: auditctl(8), -F: "n=v, n!=v, n<v, n>v, n<=v, n>=v, n&v, n&=v". Bit operators are for arguments and flags, text is equal or not
(audit_field_valid() in kernel/auditfilter.c: "bit ops are only useful on syscall args", "only equal and not equal valid ops").
"""

import ctypes
import operator
import os
import re
from pathlib import Path

import pytest

from fixtures.table import Measured, Table
from netns import libc
from netns.attempt import errno_of
from netns.netlink.auditrules import ARCH_64, OPERATORS, AuditRule, add, delete, events

# A system call that takes more arguments than it looks at, and returns 20 - nice: getpriority(PRIO_USER, 0).
GETPRIORITY, RETURNED, ARGUMENTS = 140, 20, (2, 0, 0x5A, 0xA5)
PERSONALITY = 0x0040000                     # ADDR_NO_RANDOMIZE
AUID = 1005
IDS = {"uid": 1001, "euid": 1002, "suid": 1003, "fsuid": 1004, "gid": 2001, "egid": 2002, "sgid": 2003, "fsgid": 2004}
NUMBERS = (*IDS, "auid", "pid", "ppid", "sessionid", "exit")
BITS = ("a0", "a1", "a2", "a3", "pers")
# Whose other values are no numbers that can be compared: a flag, and the kind of the machine.
EQUAL_ONLY = ("arch", "loginuid_set")
TEXTS = {"exe": "/bin/sh", "path": "/tmp/kdrift", "dir": "/tmp", "key": "kdrift", "subj_user": "u", "subj_role": "r", "subj_type": "t",
         "obj_user": "u", "obj_role": "r", "obj_type": "t"}
LEVELS = {"subj_sen": "s0", "subj_clr": "s0", "obj_lev_low": "s0", "obj_lev_high": "s0"}
COMPARE = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
           "&": lambda left, right: bool(left & right), "&=": lambda left, right: left & right == right}


def matched(sign, present, values):
    """What a rule with each of these values does to a process that has `present`."""
    return " ".join("matches" if COMPARE[sign](present, value) else "not" for value in values)


def trio(present):
    """One less, the same, one more: as a rule holds them, 32 bits without a sign."""
    return [value & 0xFFFFFFFF for value in (present - 1, present, present + 1)]


def relations(sign):
    """Of a number that is neither the smallest nor the largest."""
    return matched(sign, 10, (9, 10, 11))


def cells(field):
    if field in NUMBERS:
        return {sign: "EINVAL" if "&" in sign else relations(sign) for sign in OPERATORS}
    if field in BITS:
        present = {"pers": PERSONALITY}.get(field) if field == "pers" else ARGUMENTS[int(field[1])]
        return {sign: matched(sign, present, trio(present)) for sign in OPERATORS}
    if field in EQUAL_ONLY:
        return {"=": "not matches not" if field == "arch" else "not matches EINVAL",
                "!=": "matches not matches" if field == "arch" else "matches not EINVAL",
                **{sign: "EINVAL" for sign in OPERATORS if sign not in ("=", "!=")}}
    if field == "success":
        return {"=": "not matches matches", "!=": "matches not not", "&": "EINVAL", "&=": "EINVAL",
                **dict.fromkeys(("<", "<=", ">", ">="), Measured("success is 0 or not 0: auditctl(8) does not say what less is"))}
    if field in LEVELS:
        return {sign: "EINVAL" if "&" in sign else Measured("SELinux decides") for sign in OPERATORS}
    equal = Measured("SELinux decides") if "_" in field else "accepted"
    # audit_to_watch(), audit_make_tree(): a watch is for one file.
    unequal = "EINVAL" if field in ("path", "dir") else equal
    return {"=": equal, "!=": unequal, **{sign: "EINVAL" for sign in OPERATORS if sign not in ("=", "!=")}}


FIELDS = Table("audit.fields", "field", "operator", "auditctl(8), -F; audit_field_valid()",
               {field: cells(field) for field in (*NUMBERS, *BITS, *EQUAL_ONLY, "success", *TEXTS, *LEVELS)})


class Subject:
    """A process whose IDs all differ."""

    def __init__(self):
        self._libc = ctypes.CDLL(None, use_errno=True)
        Path("/proc/self/loginuid").write_text(str(AUID))
        self._libc.personality(PERSONALITY)
        os.setgroups([])
        os.setresgid(IDS["gid"], IDS["egid"], IDS["sgid"])
        self._libc.setfsgid(IDS["fsgid"])
        libc.prctl(8, 1)                    # PR_SET_KEEPCAPS: fsuid is none of the three
        os.setresuid(IDS["uid"], IDS["euid"], IDS["suid"])
        libc.capset(1 << 7)                 # CAP_SETUID
        self._libc.setfsuid(IDS["fsuid"])

    def values(self):
        """By field."""
        status = Path("/proc/self/status").read_text()
        found = {}
        for line, names in (("Uid", ("uid", "euid", "suid", "fsuid")), ("Gid", ("gid", "egid", "sgid", "fsgid"))):
            numbers = re.search(rf"^{line}:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)$", status, re.M).groups()
            found.update(zip(names, map(int, numbers)))
        found.update(zip(("a0", "a1", "a2", "a3"), ARGUMENTS))
        found.update(pid=os.getpid(), ppid=os.getppid(), pers=PERSONALITY, arch=ARCH_64, exit=RETURNED, loginuid_set=1, success=1,
                     auid=AUID, sessionid=int(Path("/proc/self/sessionid").read_text()))
        return found

    def act(self):
        return libc.syscall(GETPRIORITY, *ARGUMENTS)


def recorded(control, daemon, subject, rules):
    """Of each rule: "EINVAL", or whether it records the subject's call. The key of a rule is its place."""
    seen = []
    for rule in rules:
        error = errno_of(add, control, rule)
        if isinstance(error, str):
            seen.append(error)
            continue
        try:
            subject.call("act")
        finally:
            delete(control, rule)
        seen.append("accepted")
    control.user("done")
    keys = {event.syscall["key"] for event in events(daemon.call("receive_until", "done"))}
    return seen, keys


@pytest.mark.table(FIELDS)
@pytest.mark.parametrize("row", FIELDS.rows)
def test_field_of_a_rule_matches_as_its_operator_says(audit, row, table):
    """A rule with one less than what the process has, the same, and one more; of a text, whether it is taken."""
    daemon, subject = audit.daemon(1 << 20), audit.actor(Subject)
    present = subject.call("values").get(row)
    columns = FIELDS.columns(row)
    text = {**TEXTS, **LEVELS}.get(row)
    choices = [text] if text is not None else trio(present)
    pid = ("pid", "=", subject.pid)
    rules = {}
    for sign in columns:
        for index, value in enumerate(choices):
            # A key is a field of its own already.
            key = [] if row == "key" else [("key", "=", f"{columns.index(sign)}-{index}")]
            rules[sign, index] = AuditRule(((row, sign, value), *([] if row == "pid" else [pid]), *key), syscalls=(GETPRIORITY,))
    with audit.only_calls():
        seen, keys = recorded(audit.control, daemon, subject, list(rules.values()))
    answers = dict(zip(rules, seen))

    for sign in table:
        words = []
        for index in range(len(choices)):
            answer = answers[sign, index]
            if answer == "accepted" and text is None:
                answer = "matches" if f"{columns.index(sign)}-{index}" in keys else "not"
            words.append(answer)
        table.saw(words[0] if len(set(words)) == 1 and words[0] not in ("matches", "not") else " ".join(words))
