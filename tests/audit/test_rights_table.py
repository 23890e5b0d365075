"""Who may send which message to audit: CAP_AUDIT_CONTROL commands it, CAP_AUDIT_WRITE writes records, CAP_AUDIT_READ joins the readers.

Source: capabilities(7); the ranges of message types in include/uapi/linux/audit.h. Both the process and the opener of its socket need the
right (netlink_capable()). Audit knows the initial user namespace only, and tells others ECONNREFUSED, as if the kernel had no audit, so
that PAM lets users of a container in; it is commanded from the initial PID namespace only (audit_netlink_ok()).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from fixtures.table import LeftOut, Measured, OneOf, Table
from netns.attempt import errno_of
from netns.hosts.user import User
from netns.libc import CLONE_NEWNET, CLONE_NEWPID
from netns.netlink.audit import AUDIT_ADD_RULE, AUDIT_DEL_RULE, AUDIT_GET, AUDIT_MAKE_EQUIV, AUDIT_SET, AUDIT_TRIM, AuditSocket
from netns.netlink.auditrules import AuditRule

CONTROL, WRITE, READ = "CAP_AUDIT_CONTROL", "CAP_AUDIT_WRITE", "CAP_AUDIT_READ"
USER_AVC = 1107
# A rule that matches nothing: of the list "user", for a type that nobody sends.
RULE = AuditRule((("msgtype", "=", 2998),), filter_list="user", action="never").pack()

COMMANDS = {
    "GET": (AUDIT_GET, b""), "SET": (AUDIT_SET, AuditSocket.set_payload({"rate_limit": 0})), "LIST_RULES": (1013, b""),
    "ADD_RULE": (AUDIT_ADD_RULE, RULE), "DEL_RULE": (AUDIT_DEL_RULE, RULE), "TRIM": (AUDIT_TRIM, b""),
    "MAKE_EQUIV": (AUDIT_MAKE_EQUIV, struct.pack("=II", 4, 4) + b"/tmp/tmp"), "SIGNAL_INFO": (1010, b""), "TTY_GET": (1016, b""),
    "TTY_SET": (1017, struct.pack("=II", 0, 0)), "SET_FEATURE": (1018, struct.pack("=4I", 1, 0, 0, 0)), "GET_FEATURE": (1019, b""),
}
OFF = ", audit off"
RETIRED = {"LIST": 1002, "ADD": 1003, "DEL": 1004}
USERS = {"USER": 1005, "the first of 1100 to 1199": 1100, "the last of 1100 to 1199": 1199, "USER_CMD": 1123, "USER_LOGIN": 1112,
         "the first of 2100 to 2999": 2100, "the last of 2100 to 2999": 2999}
# Of the kernel, of the daemon, of SELinux, or nobody's.
OTHERS = {"LOGIN": 1006, "WATCH_INS": 1007, "WATCH_REM": 1008, "WATCH_LIST": 1009, "1020": 1020, "1099": 1099, "DAEMON_START": 1200,
          "SYSCALL": 1300, "PATH": 1302, "CONFIG_CHANGE": 1305, "EOE": 1320, "REPLACE": 1329, "AVC": 1400, "ANOM_PROMISCUOUS": 1700,
          "INTEGRITY_DATA": 1800, "KERNEL": 2000, "2099": 2099, "3000": 3000, "65535": 65535, "999": 999}


@dataclass(frozen=True)
class MessageSender:
    """Who sends: a user, in new namespaces, by a socket that an earlier self of these rights opened. `may` are the rights that count."""

    user: User
    may: tuple[str, ...]
    unshare: int = 0
    opener: "User | None" = None
    reader: bool = False
    daemon: str = "daemon"


EVERYTHING, NOTHING = User(0, (), but=True), User(1000)
ALL = (CONTROL, WRITE)
SENDERS = {
    "root": MessageSender(EVERYTHING, ALL, reader=True),
    "root without CAP_AUDIT_CONTROL": MessageSender(User(0, (CONTROL,), but=True), (WRITE,), reader=True),
    "root without CAP_AUDIT_WRITE": MessageSender(User(0, (WRITE,), but=True), (CONTROL,), reader=True),
    "root without CAP_AUDIT_READ": MessageSender(User(0, (READ,), but=True), ALL),
    "a user": MessageSender(NOTHING, ()),
    "a user with CAP_AUDIT_CONTROL": MessageSender(User(1000, (CONTROL,)), (CONTROL,)),
    "a user with CAP_AUDIT_WRITE": MessageSender(User(1000, (WRITE,)), (WRITE,)),
    "a user with CAP_AUDIT_READ": MessageSender(User(1000, (READ,)), (), reader=True),
    "a user with CAP_AUDIT_CONTROL and CAP_AUDIT_WRITE": MessageSender(User(1000, ALL), ALL),
    "a user, by root's socket": MessageSender(NOTHING, (), opener=EVERYTHING),
    "a user with CAP_AUDIT_WRITE, by root's socket": MessageSender(User(1000, (WRITE,)), (WRITE,), opener=EVERYTHING),
    "root, in another network namespace": MessageSender(EVERYTHING, ALL, CLONE_NEWNET, reader=True),
    "a user, in another network namespace": MessageSender(NOTHING, (), CLONE_NEWNET),
    "root, in another PID namespace": MessageSender(EVERYTHING, (WRITE,), CLONE_NEWPID, reader=True),
    "a user with CAP_AUDIT_WRITE, in another PID namespace": MessageSender(User(1000, (WRITE,)), (WRITE,), CLONE_NEWPID),
    "root of a user namespace": MessageSender(User(1000, (), but=True, namespace=True), ()),
    "root of a user namespace with its network": MessageSender(User(1000, (), but=True, namespace=True, network=True), ()),
    "root, without a daemon": MessageSender(EVERYTHING, ALL, reader=True, daemon="none"),
    "root, with a daemon whose buffer is full": MessageSender(EVERYTHING, ALL, reader=True, daemon="full"),
}


def cells(sender):
    def unless_refused(right, otherwise):
        if sender.user.namespace:
            return "ECONNREFUSED"
        return otherwise if right in sender.may else "EPERM"

    def unsupported(error):
        if sender.user.namespace or CONTROL in sender.may:
            return unless_refused(CONTROL, error)
        return OneOf((error, "EPERM"), "a sender without the right may be told either")

    row = {name: unless_refused(CONTROL, "done") for name in COMMANDS}
    row.update((name, unsupported("EOPNOTSUPP")) for name in RETIRED)
    row.update((name, unless_refused(WRITE, "recorded" if sender.daemon == "daemon" else "done")) for name in USERS)
    row["USER without text"] = unless_refused(WRITE, "EINVAL")
    row.update((name, unsupported("EINVAL")) for name in OTHERS)
    row["joining READLOG"] = LeftOut("not a matter of its socket") if sender.opener else "done" if sender.reader else "EPERM"
    # While audit is off a program must not fail for it, and nothing is recorded.
    row.update((f"{name}{OFF}", unless_refused(WRITE, "done")) for name in USERS)
    row[f"USER_AVC{OFF}"] = Measured("\"We filter this differently\" (include/uapi/linux/audit.h), which it does not explain")
    row.update((f"{name}{OFF}", unless_refused(CONTROL, "done")) for name in ("GET", "ADD_RULE", "DEL_RULE", "TRIM"))
    return row


RIGHTS = Table("audit.rights", "sender", "message", "capabilities(7); include/uapi/linux/audit.h; audit_netlink_ok()",
               {who: cells(sender) for who, sender in SENDERS.items()})


class Program(AuditSocket):
    """A sender's process."""

    def __init__(self, sender: MessageSender) -> None:
        if sender.opener is None:
            sender.user.become()
            super().__init__()
        else:
            super().__init__()
            sender.user.become()

    def outcome(self, kind: int, payload: bytes) -> str:
        """The errno's name, or "done"."""
        answer = errno_of(self.request, kind, payload)
        return answer if isinstance(answer, str) else "done"

    def join(self) -> str:
        """outcome() of joining the readers, with a socket of its own."""
        made = errno_of(AuditSocket, None, True)
        if isinstance(made, str):
            return made
        made.close()
        return "done"


def message(name: str, text: str) -> "tuple[int, bytes]":
    """The type and the payload of a message; a record has this text."""
    if name in COMMANDS:
        return COMMANDS[name]
    if name == "USER without text":
        return USERS["USER"], b"\0"
    kind = {**RETIRED, **USERS, **OTHERS, "USER_AVC": USER_AVC}[name]
    return kind, text.encode() + b"\0"


def outcome(control: AuditSocket, program: Callable, name: str, text: str) -> str:
    """What the sender is told. The rule is there before it is to be deleted, and never afterwards."""
    if name == "joining READLOG":
        return program("join")
    if name == "DEL_RULE":
        control.request(AUDIT_ADD_RULE, RULE)
    seen = program("outcome", *message(name, text))
    if (name, seen == "done") in (("ADD_RULE", True), ("DEL_RULE", False)):
        control.request(AUDIT_DEL_RULE, RULE)
    return seen


@pytest.mark.table(RIGHTS)
@pytest.mark.parametrize("row", RIGHTS.rows)
def test_message_to_audit_needs_the_right_for_its_type(audit, row, table):
    """All messages of the sender, with audit on, then with audit off; a record that must not be written would come before the last one."""
    sender = SENDERS[row]
    daemon = {"daemon": lambda: audit.daemon(1 << 20), "full": audit.full_daemon, "none": lambda: None}[sender.daemon]()
    program = audit.actor(lambda: Program(sender), sender.unshare).call
    seen = {}
    columns = RIGHTS.columns(row)
    for off in (False, True):
        audit.control.set(enabled=0 if off else 1)
        for column in (each for each in columns if each.endswith(OFF) == off):
            seen[column] = outcome(audit.control, program, column[:-len(OFF)] if off else column, f"text {columns.index(column)}")
    audit.control.set(enabled=1)
    recorded = set()
    if sender.daemon == "daemon":
        audit.control.user("the last one")
        recorded = {record.message for record in daemon.call("receive_until", "the last one")}

    for column in table:
        written = f"text {columns.index(column)}" in recorded
        table.saw(seen[column] if not written else "recorded" if seen[column] == "done" else f"{seen[column]}, recorded")
