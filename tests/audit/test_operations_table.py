"""What a rule about files records of each operation on them.

Source: auditctl(8), -w, -a and -F: the fields of a rule are joined by "and", and the first rule that matches decides. A path means the
file system object that has this name when the call is made, by whatever name the call finds it: one that replaces the watched file is
watched, and one that was moved away is not. A directory is watched with all below it.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.table import Measured, Table
from netns.netlink.auditrules import ARCH_32, ARCH_64, AuditRule, Trial, Trier, events
from netns.syscall import Argument, Array, Opened

CWD, FIFO = -100, 0o010600
R, W, X, A = "r", "w", "x", "a"
OPENAT, RENAME, LINK, UNLINK, CREAT, CHMOD, FCHMOD, CHOWN, LCHOWN, TRUNCATE = 257, 82, 86, 87, 85, 90, 91, 92, 94, 76
EXECVE, MKDIR, RMDIR, SYMLINK, MKNOD, CHDIR = 59, 83, 84, 88, 133, 80
ABSENT = "/nonexistent/program"


class Files:
    """A cell's files: the watched directory has the watched file, a sibling, and a directory below; a stranger and a second name of the
    watched file, hard and symbolic, are beside it."""

    def __init__(self, base: Path) -> None:
        self.directory, other = base / "dir", base / "other"
        for directory in (self.directory / "below", other):
            directory.mkdir(parents=True)
        for path in (self.directory / "file", self.directory / "sibling", self.directory / "below" / "deep", other / "stranger"):
            path.touch(mode=0o755)
        os.link(self.directory / "file", other / "alias")
        os.symlink(self.directory / "file", other / "pointer")
        self.file = self.directory / "file"
        self.sibling, self.free, self.below, self.deep, self.deeper = (
            os.fsencode(self.directory / name) for name in ("sibling", "free", "below", "below/deep", "below/free"))
        self.stranger, self.alias, self.pointer, self.away = (
            os.fsencode(other / name) for name in ("stranger", "alias", "pointer", "away"))
        self.name = os.fsencode(self.file)


Made = tuple[int, tuple[Argument, ...]]


@dataclass(frozen=True)
class Deed:
    """Calls with their numbers, the last of which is the cell's. `about` says what it is about: the "file", something in the "dir", or
    "" for neither; `kinds` are those of -F perm, `error` is its errno, 0 for none."""

    about: str
    kinds: str
    calls: Callable[[Files], Sequence[Made]]
    error: int = 0


def opening(about: str, name: str, flags: int, error: int = 0) -> Deed:
    kinds = {os.O_RDONLY: R, os.O_WRONLY: W, os.O_RDWR: R + W}[flags & os.O_ACCMODE]
    return Deed(about, kinds, lambda files: [(OPENAT, (CWD, getattr(files, name), flags, 0o600))], error)


def calling(about: str, kinds: str, number: int, *names: str, rest: "tuple[Argument, ...]" = (), error: int = 0) -> Deed:
    return Deed(about, kinds, lambda files: [(number, (*(getattr(files, name) for name in names), *rest))], error)


NEW = os.O_CREAT | os.O_WRONLY
OPERATIONS = {
    "open to read": opening("file", "name", os.O_RDONLY), "open to write": opening("file", "name", os.O_WRONLY),
    "open for both": opening("file", "name", os.O_RDWR), "open and truncate": opening("file", "name", os.O_WRONLY | os.O_TRUNC),
    "open as a directory": opening("file", "name", os.O_DIRECTORY, errno.ENOTDIR),
    "create what exists": opening("file", "name", NEW | os.O_EXCL, errno.EEXIST),
    "open by its hard link": opening("file", "alias", os.O_RDONLY), "open by a symbolic link": opening("file", "pointer", os.O_RDONLY),
    "open by a relative path": Deed("file", R, lambda files: [
        (CHDIR, (os.fsencode(files.directory),)), (OPENAT, (CWD, b"below/../file", os.O_RDONLY, 0))]),
    "open by the directory's descriptor": Deed("file", R, lambda files: [
        (OPENAT, (Opened(str(files.directory)), b"file", os.O_RDONLY, 0))]),
    "open its sibling": opening("dir", "sibling", os.O_RDONLY), "open a file further below": opening("dir", "deep", os.O_RDONLY),
    "open a stranger": opening("", "stranger", os.O_RDONLY),
    "create a sibling": opening("dir", "free", NEW), "create a file further below": opening("dir", "deeper", NEW),
    "create a stranger": opening("", "away", NEW),
    "rename within": calling("file", W, RENAME, "name", "free"), "rename away": calling("file", W, RENAME, "name", "away"),
    "rename its sibling onto it": calling("file", W, RENAME, "sibling", "name"),
    "rename a stranger onto it": calling("file", W, RENAME, "stranger", "name"),
    "rename a stranger into the directory": calling("dir", W, RENAME, "stranger", "free"),
    "rename its sibling away": calling("dir", W, RENAME, "sibling", "away"),
    "rename a directory away": calling("dir", W, RENAME, "below", "away"), "rename a stranger": calling("", W, RENAME, "stranger", "away"),
    "link within": calling("file", W + A, LINK, "name", "free"), "link away": calling("file", W + A, LINK, "name", "away"),
    "link its hard link": calling("file", W + A, LINK, "alias", "away"),
    "link a stranger into the directory": calling("dir", W + A, LINK, "stranger", "free"),
    "unlink": calling("file", W, UNLINK, "name"), "unlink its hard link": calling("file", W, UNLINK, "alias"),
    "unlink its sibling": calling("dir", W, UNLINK, "sibling"), "unlink a stranger": calling("", W, UNLINK, "stranger"),
    "chmod": calling("file", A, CHMOD, "name", rest=(0o700,)), "chmod its hard link": calling("file", A, CHMOD, "alias", rest=(0o700,)),
    "chmod by a symbolic link": calling("file", A, CHMOD, "pointer", rest=(0o700,)),
    "chmod by descriptor": Deed("file", A, lambda files: [(FCHMOD, (Opened(str(files.file)), 0o700))]),
    "chmod its sibling": calling("dir", A, CHMOD, "sibling", rest=(0o700,)),
    "chown": calling("file", A, CHOWN, "name", rest=(1, 1)), "chown a symbolic link": calling("", A, LCHOWN, "pointer", rest=(1, 1)),
    "truncate": calling("file", W, TRUNCATE, "name", rest=(0,)),
    "execute": calling("file", X, EXECVE, "name", rest=(Array((b"x",)), Array(())), error=errno.ENOEXEC),
    "execute its sibling": calling("dir", X, EXECVE, "sibling", rest=(Array((b"x",)), Array(())), error=errno.ENOEXEC),
    "make a directory": calling("dir", W, MKDIR, "free", rest=(0o700,)), "make a fifo": calling("dir", W, MKNOD, "free", rest=(FIFO, 0)),
    "make a symbolic link": Deed("dir", W, lambda files: [(SYMLINK, (b"file", files.free))]),
    "remove a directory": Deed("dir", W, lambda files: [(MKDIR, (files.free, 0o700)), (RMDIR, (files.free,))]),
    "open what has replaced it": Deed("file", R, lambda files: [
        (RENAME, (files.stranger, files.name)), (OPENAT, (CWD, files.name, os.O_RDONLY, 0))]),
    "create it anew": Deed("file", W, lambda files: [(UNLINK, (files.name,)), (CREAT, (files.name, 0o600))]),
    "open what was created anew": Deed("file", R, lambda files: [
        (UNLINK, (files.name,)), (CREAT, (files.name, 0o600)), (OPENAT, (CWD, files.name, os.O_RDONLY, 0))]),
    "chmod it after it was moved away": Deed("", A, lambda files: [(RENAME, (files.name, files.away)), (CHMOD, (files.away, 0o700))]),
    "chmod it after it has come back": Deed("file", A, lambda files: [
        (RENAME, (files.name, files.away)), (LINK, (files.away, files.name)), (CHMOD, (files.name, 0o700))]),
    "unlink what has replaced it": Deed("file", W, lambda files: [(RENAME, (files.sibling, files.name)), (UNLINK, (files.name,))]),
}


@dataclass(frozen=True)
class Watch:
    """A rule: `where` is "path", "dir" or "" for any; `more` are its other fields; `takes` says which operations these let through.
    Before it there may be a rule with the action "never"."""

    where: str
    takes: Callable[[Deed], bool] = lambda operation: True
    more: "Callable[[int, Files], list[tuple]]" = lambda pid, files: []
    syscalls: "tuple[int, ...]" = ()
    never: str = ""


def kinds(letters: str) -> "dict[str, object]":
    return {"takes": lambda operation: bool(set(letters) & set(operation.kinds)), "more": lambda pid, files: [("perm", "=", letters)]}


def only(*field: object) -> "dict[str, object]":
    return {"more": lambda pid, files: [field]}


def always(*field: object) -> "dict[str, object]":
    return {**only(*field), "takes": lambda operation: True}


def never(*field: object) -> "dict[str, object]":
    return {**only(*field), "takes": lambda operation: False}


UNLINKS = [operation for name, operation in OPERATIONS.items() if name.startswith("unlink")]
PROGRAM = os.path.realpath("/proc/self/exe")
NO_ID = 0xFFFFFFFF
WATCHES = {
    **{f"{where}{f' and perm={letters}' if letters else ''}": Watch(where, **(kinds(letters) if letters else {}))
       for where in ("path", "dir") for letters in ("", R, W, X, A, R + W, W + A, R + X)},
    **{f"{where} and success={wanted}": Watch(where, more=lambda pid, files, wanted=wanted: [("success", "=", wanted)],
                                              takes=lambda operation, wanted=wanted: (operation.error == 0) == bool(wanted))
       for where in ("path", "dir") for wanted in (0, 1)},
    "path and exit=-EEXIST": Watch("path", lambda operation: operation.error == errno.EEXIST, **only("exit", "=", -errno.EEXIST)),
    "path and exit!=-EEXIST": Watch("path", lambda operation: operation.error != errno.EEXIST, **only("exit", "!=", -errno.EEXIST)),
    "path and perm=w and success=0": Watch("path", lambda operation: W in operation.kinds and operation.error != 0,
                                           lambda pid, files: [("perm", "=", W), ("success", "=", 0)]),
    "path and exe=": Watch("path", **always("exe", "=", PROGRAM)), "dir and exe=": Watch("dir", **always("exe", "=", PROGRAM)),
    "path and exe!=": Watch("path", **never("exe", "!=", PROGRAM)),
    "path and the exe of another": Watch("path", **never("exe", "=", "/bin/sh")),
    "path and not the exe of another": Watch("path", **always("exe", "!=", "/bin/sh")),
    "path and exe= itself": Watch("path", lambda operation: False, lambda pid, files: [("exe", "=", str(files.file))]),
    "path and uid=0": Watch("path", **always("uid", "=", 0)), "path and uid!=0": Watch("path", **never("uid", "!=", 0)),
    "path and auid=unset": Watch("path", **always("auid", "=", NO_ID)), "path and auid!=unset": Watch("path", **never("auid", "!=", NO_ID)),
    "path and pid=": Watch("path", more=lambda pid, files: [("pid", "=", pid)]),
    "path and pid!=": Watch("path", lambda operation: False, lambda pid, files: [("pid", "!=", pid)]),
    "path and arch=b64": Watch("path", **always("arch", "=", ARCH_64)), "path and arch=b32": Watch("path", **never("arch", "=", ARCH_32)),
    "path, for unlink alone": Watch("path", lambda operation: operation in UNLINKS, syscalls=(UNLINK,)),
    "dir, after never for the path": Watch("dir", lambda operation: operation.about != "file", never="path"),
    "path, after never for the directory": Watch("path", lambda operation: False, never="dir"),
}



HARD_LINK = Measured("auditctl(8) does not say whether a watched directory's file is watched by its name outside")


def cell(name, watch, operation):
    if "dir" in (watch.where, watch.never) and "hard link" in name:
        return HARD_LINK
    within = operation.about == "file" or operation.about == "dir" and watch.where == "dir"
    return "recorded" if within and watch.takes(operation) else "nothing"


RECORDED = Table("audit.operations", "rule", "operation", "auditctl(8)",
                 {name: {deed: cell(deed, watch, operation) for deed, operation in OPERATIONS.items()} for name, watch in WATCHES.items()})


@pytest.fixture
def base():
    with tempfile.TemporaryDirectory(prefix="a") as name:
        yield Path(name)


def place(where, files):
    return (where, "=", str(files.file if where == "path" else files.directory))


def trial(watch, operation, files, pid, key):
    rules = [AuditRule((place(watch.never, files),), action="never")] if watch.never else []
    rules.append(AuditRule((place(watch.where, files), *watch.more(pid, files), ("key", "=", key)), syscalls=watch.syscalls))
    return Trial(tuple(rules), tuple(operation.calls(files)))


@pytest.mark.table(RECORDED)
@pytest.mark.parametrize("row", RECORDED.rows)
def test_rule_records_the_operations_that_all_its_fields_match(audit, base, row, table):
    """Each cell has files and a rule of its own. The rule can be deleted by the same words afterwards, whatever has become of the files."""
    daemon, trier = audit.daemon(1 << 20), audit.actor(Trier)
    trials = {}
    for index, column in enumerate(RECORDED.columns(row)):
        trials[column] = trial(WATCHES[row], OPERATIONS[column], Files(base / str(index)), trier.pid, str(index))

    with audit.only_calls():
        stays = dict(zip(trials, trier.call("make", list(trials.values()))))
        trier.call("user", "done")
        seen = events(daemon.call("receive_until", "done"))

    for index, column in enumerate(table):
        number = str(trials[column].calls[-1][0])
        count = [(event.syscall["key"], event.syscall["syscall"]) for event in seen].count((str(index), number))
        text = "nothing" if not count else "recorded" if count == 1 else f"recorded {count} times"
        table.saw(f"{text}, the rule stays: {stays[column]}" if stays[column] else text)
