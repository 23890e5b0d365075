"""Rules for audit, as auditctl(8) writes them, and the events that they record.

Source: struct audit_rule_data in include/uapi/linux/audit.h.
"""

import os
import re
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Union

from netns.attempt import errno_of
from netns.netlink.audit import AUDIT_ADD_RULE, AUDIT_DEL_RULE, AuditSocket, Record
from netns.syscall import Argument, Caller

FIELDS = {
    "pid": 0, "uid": 1, "euid": 2, "suid": 3, "fsuid": 4, "gid": 5, "egid": 6, "sgid": 7, "fsgid": 8, "auid": 9, "pers": 10, "arch": 11,
    "msgtype": 12, "subj_user": 13, "subj_role": 14, "subj_type": 15, "subj_sen": 16, "subj_clr": 17, "ppid": 18, "obj_user": 19,
    "obj_role": 20, "obj_type": 21, "obj_lev_low": 22, "obj_lev_high": 23, "loginuid_set": 24, "sessionid": 25, "fstype": 26,
    "devmajor": 100, "devminor": 101, "inode": 102, "exit": 103, "success": 104, "path": 105, "perm": 106, "dir": 107, "filetype": 108,
    "obj_uid": 109, "obj_gid": 110, "compare": 111, "exe": 112, "saddr_fam": 113, "a0": 200, "a1": 201, "a2": 202, "a3": 203, "key": 210,
}
OPERATORS = {
    "=": 0x40000000, "!=": 0x30000000, "<": 0x10000000, "<=": 0x50000000, ">": 0x20000000, ">=": 0x60000000, "&": 0x08000000,
    "&=": 0x48000000,
}
LISTS = {"user": 0, "task": 1, "exit": 4, "exclude": 5, "filesystem": 6, "io_uring": 7}
ACTIONS = {"never": 0, "always": 2}
PERMISSIONS = {"x": 1, "w": 2, "r": 4, "a": 8}
# AUDIT_CLASS_*, for 64-bit system calls; for 32-bit ones each is one more.
CLASSES = {"dir write": 0, "attributes": 2, "read": 4, "write": 6, "signal": 8}
ARCH_64, ARCH_32 = 0xC000003E, 0x40000003
AUDIT_SYSCALL, AUDIT_PATH, AUDIT_CONFIG_CHANGE, AUDIT_CWD, AUDIT_OBJ_PID, AUDIT_PROCTITLE = 1300, 1302, 1305, 1307, 1318, 1327
_WORDS, _LAST_BIT = 64, 2047

Value = Union[int, str]
Condition = tuple[str, str, Value]


@dataclass(frozen=True)
class AuditRule:
    """Fields that must all match, each a name of FIELDS, an operator and a number or text; `perm` takes letters, such as "rw".
    `syscalls` are numbers, `classes` numbers of AUDIT_CLASS_*; with neither it is for all system calls."""

    conditions: tuple[Condition, ...]
    syscalls: Collection[int] = ()
    classes: Collection[int] = ()
    filter_list: str = "exit"
    action: str = "always"

    def pack(self) -> bytes:
        """struct audit_rule_data."""
        numbers, values, operators, texts = [], [], [], b""
        for name, operator, value in self.conditions:
            if name == "perm" and isinstance(value, str):
                value = sum(PERMISSIONS[letter] for letter in value)
            if isinstance(value, str):
                text = os.fsencode(value)
                texts, value = texts + text, len(text)
            numbers.append(FIELDS[name])
            values.append(value & 0xFFFFFFFF)
            operators.append(OPERATORS[operator])
        unused = [0] * (64 - len(numbers))
        words = *self._mask(), *numbers, *unused, *values, *unused, *operators, *unused
        start = LISTS[self.filter_list], ACTIONS[self.action], len(numbers)
        return struct.pack("=260I", *start, *words, len(texts)) + texts

    def _mask(self) -> list[int]:
        bits = [*self.syscalls, *(_LAST_BIT - number for number in self.classes)]
        if not bits:
            return [0xFFFFFFFF] * (_WORDS - 1) + [0xFFFF]       # the last 16 bits are the classes
        mask = [0] * _WORDS
        for bit in bits:
            mask[bit // 32] |= 1 << bit % 32
        return mask


def add(control: AuditSocket, rule: AuditRule) -> None:
    """Add a rule behind the others of its list. Raises OSError: EINVAL, EEXIST."""
    control.request(AUDIT_ADD_RULE, rule.pack())


def delete(control: AuditSocket, rule: AuditRule) -> None:
    """Delete the rule with the same fields. Raises OSError: ENOENT."""
    control.request(AUDIT_DEL_RULE, rule.pack())


@dataclass(frozen=True)
class Trial:
    """System calls, each a number and its arguments, that are made while these rules are the last of their list."""

    rules: tuple[AuditRule, ...]
    calls: tuple[tuple[int, tuple[Argument, ...]], ...]
    compat: bool = False


class Trier(AuditSocket):
    """Makes trials, one after the other; to be a process of its own, which audit has watched from its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self._caller = Caller()

    def require_compat(self) -> None:
        """Raise MissingFeature if the kernel takes no 32-bit system calls."""
        self._caller.require_compat()

    def make(self, trials: Sequence[Trial]) -> list[str]:
        """Make each trial and delete its rules: the name of the errno that the first deletion failed with, "" if none has.

        Raises OSError if a rule cannot be added, MissingFeature for a system call that the kernel lacks."""
        return [self._make(trial) for trial in trials]

    def _make(self, trial: Trial) -> str:
        prepared = [(number, self._caller.prepare(arguments, trial.compat)) for number, arguments in trial.calls]
        for rule in trial.rules:
            add(self, rule)
        try:
            for number, arguments in prepared:
                self._caller.call(number, arguments, trial.compat)
        finally:
            failed = [errno_of(delete, self, rule) for rule in trial.rules]
            self._caller.release()
        return next((name for name in failed if isinstance(name, str)), "")


@dataclass(frozen=True)
class AuditEvent:
    """The records of one event: the fields of its SYSCALL record, and of each PATH and OBJ_PID record."""

    syscall: dict[str, str] = field(default_factory=dict)
    paths: list[dict[str, str]] = field(default_factory=list)
    targets: list[dict[str, str]] = field(default_factory=list)


def events(records: Iterable[Record]) -> list[AuditEvent]:
    """The events that have a SYSCALL record, in order."""
    found: dict[int, AuditEvent] = {}
    for record in records:
        event = found.setdefault(record.serial, AuditEvent())
        if record.kind == AUDIT_SYSCALL:
            event.syscall.update(fields(record.text))
        elif record.kind == AUDIT_PATH:
            event.paths.append(fields(record.text))
        elif record.kind == AUDIT_OBJ_PID:
            event.targets.append(fields(record.text))
    return [event for event in found.values() if event.syscall]


def fields(text: str) -> dict[str, str]:
    """The fields of a record's text, without the quotation marks."""
    return {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', text)}
