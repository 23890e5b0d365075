"""Watches by permission: which system calls "-F perm=" takes for reading, writing, executing and changing attributes of a file.

Source: auditctl(8), -p: "not the standard file permissions, but rather the kind of syscall that would do this kind of thing"; for reads
and writes the open flags decide. Which calls are of a kind is listed in include/asm-generic/audit_read.h, audit_write.h,
audit_dir_write.h and audit_change_attr.h; in a rule's mask the lists are AUDIT_CLASS_* (include/uapi/linux/audit.h).
"""

import os
import stat
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.table import Measured, Table
from netns.netlink.auditrules import ARCH_32, ARCH_64, CLASSES, AuditRule, Trial, Trier, events
from netns.syscall import Argument, Array, Opened, UnixSocket

CWD = -100                                  # AT_FDCWD
NAME, TARGET = b"user.kdrift", b"elsewhere"
QUOTA_FORMAT = 0x800004 << 8                # QCMD(Q_GETFMT, USRQUOTA)
FIFO = stat.S_IFIFO | 0o600
BIND = 2                                    # socketcall(2)
R, W, X, A = "r", "w", "x", "a"
UNSAID = "?"


@dataclass(frozen=True)
class Place:
    """Where a cell's call is made: the watched file, and a name beside it that is free."""

    file: bytes
    free: bytes

    def opened(self, flags: int = os.O_RDONLY) -> Opened:
        return Opened(os.fsdecode(self.file), flags)

    def address(self) -> bytes:
        return struct.pack("=H", 1) + self.file

    def how(self, flags: int) -> bytes:
        """struct open_how."""
        return struct.pack("=QQQ", flags, 0, 0)


@dataclass(frozen=True)
class Call:
    """A system call: its numbers, 0 for none; the kinds it is of, or "?" where no source says; what the watched file is before it; its
    arguments. `listed` says whether a header has it: open and execve calls are known by their flags and numbers."""

    native: int
    compat: int
    kinds: str
    before: str
    arguments: Callable[[Place], tuple[Argument, ...]]
    listed: bool = True
    directory: bool = False                 # in audit_dir_write.h
    named: bool = True                      # it names the file, and not only a descriptor whose opening could have been watched


def opening(flags: int, kinds: str) -> dict[str, Call]:
    names = {os.O_RDONLY: "O_RDONLY", os.O_WRONLY: "O_WRONLY", os.O_RDWR: "O_RDWR", 3: "O_RDWR and O_WRONLY", os.O_PATH: "O_PATH",
             os.O_TRUNC: "O_RDONLY with O_TRUNC", os.O_CREAT: "O_RDONLY with O_CREAT", os.O_WRONLY | os.O_CREAT: "O_WRONLY with O_CREAT"}
    before = "nothing" if flags & os.O_CREAT else "a file"
    return {
        f"open {names[flags]}": Call(2, 5, kinds, before, lambda place: (place.file, flags, 0), listed=False),
        f"openat {names[flags]}": Call(257, 295, kinds, before, lambda place: (CWD, place.file, flags, 0), listed=False),
        f"openat2 {names[flags]}": Call(437, 437, kinds, before, lambda place: (CWD, place.file, place.how(flags), 24), listed=False),
    }


def plain(native: int, compat: int, kinds: str, *rest: Argument, at: bool = False, before: str = "a file", **more: bool) -> Call:
    """A call whose first argument is the file's name; with `at`, a directory's descriptor comes before it."""
    return Call(native, compat, kinds, before, lambda place: (*((CWD,) if at else ()), place.file, *rest), **more)


def by_descriptor(native: int, compat: int, kinds: str, *rest: Argument, flags: int = os.O_RDONLY, **more: bool) -> Call:
    return Call(native, compat, kinds, "a file", lambda place: (place.opened(flags), *rest), **more)


def to_free(native: int, compat: int, kinds: str, *rest: Argument, at: bool = False) -> Call:
    """A call with the file's name and the free one."""
    base = (CWD,) if at else ()
    return Call(native, compat, kinds, "a file", lambda place: (*base, place.file, *base, place.free, *rest), directory=True)


EMPTY = Array(())
XATTR = struct.pack("=QII", 0, 0, 0)        # struct xattr_args

CALLS = {
    **opening(os.O_RDONLY, R), **opening(os.O_WRONLY, W), **opening(os.O_RDWR, R + W), **opening(os.O_RDONLY | os.O_CREAT, R),
    **opening(os.O_WRONLY | os.O_CREAT, W), **opening(os.O_TRUNC, UNSAID), **opening(3, UNSAID), **opening(os.O_PATH, UNSAID),
    "creat": plain(85, 8, W, 0o600, directory=True),
    "execve": plain(59, 11, X, Array((b"x",)), EMPTY, before="a program", listed=False),
    "execveat": plain(322, 358, X, Array((b"x",)), EMPTY, 0, at=True, before="a program", listed=False),

    "readlink": plain(89, 85, R, bytes(64), 64, before="a link"),
    "readlinkat": plain(267, 305, R, bytes(64), 64, at=True, before="a link"),
    "listxattr": plain(194, 232, R, 0, 0), "llistxattr": plain(195, 233, R, 0, 0), "flistxattr": by_descriptor(196, 234, R, 0, 0),
    "listxattrat": plain(465, 465, R, 0, 0, 0, at=True),
    "getxattr": plain(191, 229, R, NAME, 0, 0), "lgetxattr": plain(192, 230, R, NAME, 0, 0),
    "fgetxattr": by_descriptor(193, 231, R, NAME, 0, 0), "getxattrat": plain(464, 464, R, 0, NAME, XATTR, 16, at=True),
    "quotactl": Call(179, 131, R + W, "a file", lambda place: (QUOTA_FORMAT, place.file, 0, 0)),

    "acct": plain(163, 51, W, before="a directory"), "swapon": plain(167, 87, W, 0),
    "truncate": plain(76, 92, W, 0), "truncate64": plain(0, 193, W, 0, 0),
    "ftruncate": by_descriptor(77, 93, W, 0, flags=os.O_WRONLY, named=False),
    "ftruncate64": by_descriptor(0, 194, W, 0, 0, flags=os.O_WRONLY, named=False),
    "fallocate": by_descriptor(285, 324, W, 0, 0, 1, flags=os.O_WRONLY, named=False),
    "bind": Call(49, 361, W, "nothing", lambda place: (UnixSocket(), place.address(), 3 + len(place.file))),
    "socketcall bind": Call(0, 102, W, "nothing", listed=False, arguments=lambda place: (
        BIND, Array((UnixSocket(), place.address(), 3 + len(place.file))))),

    "rename": to_free(82, 38, W), "renameat": to_free(264, 302, W, at=True), "renameat2": to_free(316, 353, W, 0, at=True),
    "mkdir": plain(83, 39, W, 0o700, before="nothing", directory=True),
    "mkdirat": plain(258, 296, W, 0o700, at=True, before="nothing", directory=True),
    "rmdir": plain(84, 40, W, before="a directory", directory=True),
    "unlink": plain(87, 10, W, directory=True), "unlinkat": plain(263, 301, W, 0, at=True, directory=True),
    "symlink": Call(88, 83, W, "nothing", lambda place: (TARGET, place.file), directory=True),
    "symlinkat": Call(266, 304, W, "nothing", lambda place: (TARGET, CWD, place.file), directory=True),
    "mknod": plain(133, 14, W, FIFO, 0, before="nothing", directory=True),
    "mknodat": plain(259, 297, W, FIFO, 0, at=True, before="nothing", directory=True),
    "link": to_free(86, 9, W + A), "linkat": to_free(265, 303, W + A, 0, at=True),

    "chmod": plain(90, 15, A, 0o640), "fchmod": by_descriptor(91, 94, A, 0o640), "fchmodat": plain(268, 306, A, 0o640, at=True),
    "fchmodat2": plain(452, 452, A, 0o640, 0, at=True),
    "chown": plain(92, 182, A, 1, 1), "lchown": plain(94, 16, A, 1, 1), "fchown": by_descriptor(93, 95, A, 1, 1),
    "fchownat": plain(260, 298, A, 1, 1, 0, at=True), "chown32": plain(0, 212, A, 1, 1), "lchown32": plain(0, 198, A, 1, 1),
    "fchown32": by_descriptor(0, 207, A, 1, 1),
    "setxattr": plain(188, 226, A, NAME, b"x", 1, 0), "lsetxattr": plain(189, 227, A, NAME, b"x", 1, 0),
    "fsetxattr": by_descriptor(190, 228, A, NAME, b"x", 1, 0), "setxattrat": plain(463, 463, A, 0, NAME, XATTR, 16, at=True),
    "removexattr": plain(197, 235, A, NAME), "lremovexattr": plain(198, 236, A, NAME), "fremovexattr": by_descriptor(199, 237, A, NAME),
    "removexattrat": plain(466, 466, A, 0, NAME, at=True),

    "utime": plain(132, 30, UNSAID, 0), "utimes": plain(235, 271, UNSAID, 0), "utimensat": plain(280, 320, UNSAID, 0, 0, at=True),
    "futimesat": plain(261, 299, UNSAID, 0, at=True), "file_setattr": plain(469, 469, UNSAID, bytes(24), 24, 0, at=True),
    "file_getattr": plain(468, 468, UNSAID, bytes(24), 24, 0, at=True),
    "stat": plain(4, 106, UNSAID, bytes(256)), "lstat": plain(6, 107, UNSAID, bytes(256)),
    "newfstatat": plain(262, 0, UNSAID, bytes(256), 0, at=True), "statx": plain(332, 383, UNSAID, 0, 0x7FF, bytes(256), at=True),
    "access": plain(21, 33, UNSAID, 4), "faccessat": plain(269, 307, UNSAID, 4, at=True),
    "faccessat2": plain(439, 439, UNSAID, 4, 0, at=True), "statfs": plain(137, 99, UNSAID, bytes(256)),
    "chdir": plain(80, 12, UNSAID, before="a directory"), "name_to_handle_at": plain(303, 341, UNSAID, bytes(160), bytes(8), 0, at=True),
}

KINDS = {"r": R, "w": W, "x": X, "a": A, "rwxa": R + W + X + A}
NO_SOURCE = Measured("neither auditctl(8) nor a header says which kind of access this is")
BY_DESCRIPTOR = Measured("for writes auditctl(8) looks at the opening; whether a write by descriptor is also recorded it does not say")


def cells(call):
    def by_kind(matches):
        return NO_SOURCE if call.kinds == UNSAID else "recorded" if matches else "nothing"

    def watched(matches):
        return by_kind(matches) if call.named or not matches else BY_DESCRIPTOR

    row = {}
    for watch in ("path", "dir"):
        row[watch] = "recorded" if call.named else BY_DESCRIPTOR
        for name, kinds in KINDS.items():
            row[f"{watch} {name}"] = watched(set(kinds) & set(call.kinds))
    for kind in (W, A):
        row[f"path not {kind}"] = watched(kind not in call.kinds)
    members = set(call.kinds) if call.listed else set()
    for name, kind in (("read", R), ("write", W), ("attributes", A)):
        row[f"class {name}"] = by_kind(kind in members)
    row["class dir write"] = by_kind(call.directory)
    return row


# The 32-bit calls have lists of their own; all else is as for the 64-bit ones.
COMPAT = ("path", *(f"path {kind}" for kind in (R, W, X, A)), "class read", "class write", "class attributes", "class dir write")

PERMISSIONS = Table("audit.permissions", "system call", "rule", "auditctl(8), -p and -F perm; include/asm-generic/audit_*.h", {
    **{name: cells(call) for name, call in CALLS.items() if call.native},
    **{f"{name}, 32-bit": {column: cell for column, cell in cells(call).items() if column in COMPAT} for name, call in CALLS.items()
       if call.compat},
})


@pytest.fixture
def base():
    with tempfile.TemporaryDirectory(prefix="a") as name:
        yield Path(name)


def made(base: Path, number: int, before: str) -> Place:
    """A directory of its own for each cell, with the file."""
    directory = base / str(number)
    directory.mkdir()
    path = directory / "f"
    if before == "a file":
        path.touch()
    elif before == "a program":
        path.touch(mode=0o700)              # an empty one: ENOEXEC, after it was looked up
    elif before == "a directory":
        path.mkdir()
    elif before == "a link":
        path.symlink_to("nowhere")
    return Place(os.fsencode(path), os.fsencode(directory / "free"))


def key_of(column: str) -> str:
    """A text with a space would be recorded in hexadecimal digits."""
    return column.replace(" ", "-")


def rule(column: str, place: Place, pid: int, compat: bool) -> AuditRule:
    """What a column says, with the column as its key."""
    key = ("key", "=", key_of(column))
    if column.startswith("class"):
        arch = ("arch", "=", ARCH_32 if compat else ARCH_64)
        return AuditRule((arch, ("pid", "=", pid), key), classes=(CLASSES[column.partition(" ")[2]] + compat,))
    watch, _, kinds = column.partition(" ")
    path = os.fsdecode(place.file)
    where = (watch, "=", path if watch == "path" else str(Path(path).parent))
    negated, _, kind = kinds.rpartition("not ")
    perm = [("perm", "!=" if negated or kinds.startswith("not ") else "=", kind)] if kinds else []
    return AuditRule((where, *perm, key))


@pytest.mark.table(PERMISSIONS)
@pytest.mark.parametrize("row", PERMISSIONS.rows)
def test_permission_of_a_watch_takes_the_system_calls_of_its_kind(audit, base, row, table):
    """Each cell's call is made on a file of its own while the cell's rule is there; the SYSCALL record has the rule's key."""
    name, _, bits = row.partition(", ")
    call, compat = CALLS[name], bool(bits)
    daemon, trier = audit.daemon(1 << 20), audit.actor(Trier)
    if compat:
        trier.call("require_compat")
    number = call.compat if compat else call.native
    trials = {}
    for index, column in enumerate(PERMISSIONS.columns(row)):
        place = made(base, index, call.before)
        trials[column] = Trial((rule(column, place, trier.pid, compat),), ((number, call.arguments(place)),), compat)

    with audit.only_calls():
        trier.call("make", list(trials.values()))
        trier.call("user", "done")
        seen = events(daemon.call("receive_until", "done"))

    found = [event.syscall["key"] for event in seen if event.syscall["syscall"] == str(number)]
    for column in table:
        count = found.count(key_of(column))
        table.saw("nothing" if not count else "recorded" if count == 1 else f"recorded {count} times")
