"""changes.toml: known changes between kernels, with the commits that made them."""
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from common.project import PROJECT
from report.entries import COMMIT, TEXT, TEXTS, read_entries, table
from report.kinds import mirrored
from report.known import Affected, parse_range, version_key
from report.results import KernelResult

FILE = PROJECT / "changes.toml"
_TABLE = table({"id": TEXT, "sentence": TEXT, "kinds": TEXTS, "kernels": TEXTS},
               {"tests": TEXTS, "commit": COMMIT, "subject": TEXT, "unknown": TEXT})


class ExpectedError(Exception):
    """The file cannot be used; the message says where and why in one line."""


@dataclass(frozen=True)
class Expected:
    """One entry.  `kinds` are fnmatch(3) patterns of report.kinds, from older to newer kernel; `tests` are patterns of test ids, one of
    which each test of a kind must match; `kernels` are those that have the change."""

    id: str
    sentence: str
    kinds: tuple[str, ...]
    kernels: tuple[Affected, ...]
    tests: tuple[str, ...] = ("*",)
    commit: str = ""
    subject: str = ""
    unknown: str = ""

    def came_with(self, version: str) -> bool:
        return any(each.holds(version) for each in self.kernels)

    def fits(self, kind: str, tests: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(kind, _literal(pattern)) for pattern in self.kinds) and all(
            any(fnmatch.fnmatchcase(test, _literal(pattern)) for pattern in self.tests) for test in tests)

    def __str__(self) -> str:
        return f"{self.sentence} ({self.commit[:12]}, {self.subject})" if self.commit else f"{self.sentence} ({self.unknown})"


@dataclass(frozen=True)
class Together:
    """Several entries that explain one kind, each in different tests."""

    entries: tuple[Expected, ...]

    @property
    def id(self) -> str:
        return " and ".join(entry.id for entry in self.entries)

    def __str__(self) -> str:
        return "; ".join(map(str, self.entries))


Explanation = Expected | Together


def _literal(pattern: str) -> str:
    """Brackets are literal."""
    return pattern.replace("[", "[[]")


@cache
def load(path: Path = FILE) -> tuple[Expected, ...]:
    """The entries of the file.  Raises ExpectedError."""
    return tuple(read_entries(path, "change", _TABLE, _expected, ExpectedError))


def _expected(entry: dict[str, Any]) -> Expected:
    commit = entry.get("commit", "")
    if commit and "subject" not in entry:
        raise ValueError("needs 'subject', that of the commit")
    if not commit and "unknown" not in entry:
        raise ValueError("needs 'commit', or 'unknown' with the reason why there is none")
    return Expected(entry["id"], entry["sentence"], tuple(entry["kinds"]), tuple(parse_range(text) for text in entry["kernels"]),
                    tuple(entry.get("tests", ["*"])), commit, entry.get("subject", ""), entry.get("unknown", ""))


def explain(old: KernelResult, new: KernelResult, path: Path = FILE) -> Callable[[str, Sequence[str]], Explanation | None]:
    """A function that explains a kind that appeared from `old` to `new`: by an entry that came between the two, or by one entry per test.
    Raises ExpectedError."""
    versions = [kernel.version or kernel.release for kernel in (old, new)]
    try:
        for version in versions:
            version_key(version)
    except ValueError:
        return lambda kind, tests: None
    has = [{entry.id for entry in load(path) if entry.came_with(version)} for version in versions]
    came = [entry for entry in load(path) if entry.id in has[0] ^ has[1]]

    def first(kind: str, tests: Sequence[str]) -> Expected | None:
        return next((entry for entry in came if entry.fits(mirrored(kind) if entry.id in has[0] else kind, tests)), None)

    def entry_of(kind: str, tests: Sequence[str]) -> Explanation | None:
        if entry := first(kind, tests):
            return entry
        each = [first(kind, [test]) for test in tests]
        return Together(tuple(dict.fromkeys(entry for entry in each if entry))) if all(each) else None
    return entry_of
