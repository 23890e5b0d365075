"""known_issues.toml: bugs of released kernels that tests of this suite show, and the kernels that have them.

known_signatures.json records how each shows itself (report.signature). Only `./kdrift known --record` writes it, so it is separate
from what people write.
"""
import fnmatch
import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from common.errors import one_line
from common.project import PROJECT
from report.entries import COMMIT, TEXT, TEXTS, read_entries, table
from report.signature import matches

FILE = PROJECT / "known_issues.toml"
SIGNATURES = "known_signatures.json"         # beside it
_TABLE = table({"id": TEXT, "subject": TEXT, "tests": TEXTS, "kernels": TEXTS}, {"commit": COMMIT, "commit_unknown": TEXT, "note": TEXT})
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:[~-]?rc(\d+))?(?:[^-]*-(\d+))?")
NO_FIX = "no fix known: "                   # a subject with this prefix has no commit
_RELEASED = 1 << 30                         # in place of a candidate's number: a release sorts after its candidates


class KnownIssuesError(Exception):
    """The file cannot be used; the message says where and why in one line."""


@cache
def version_key(version: str) -> tuple[int, ...]:
    """A sort key for a Debian package's version or a kernel's release; `6.12-rc3` comes before `6.12`.

    Raises ValueError.
    """
    match = _VERSION.match(version)
    if match is None:
        raise ValueError(f"{version!r} is not a kernel version")
    major, minor, patch, candidate, revision = match.groups()
    return int(major), int(minor), int(patch or 0), int(candidate or _RELEASED), int(revision or 0)


@dataclass(frozen=True)
class Affected:
    """The kernels from `first` up to, but not including, `fixed`; an empty end is open."""

    first: str
    fixed: str

    def holds(self, version: str) -> bool:
        key = version_key(version)
        return (not self.first or version_key(self.first) <= key) and (not self.fixed or key < version_key(self.fixed))


@dataclass(frozen=True)
class Issue:
    """One entry.  `tests` are fnmatch(3) patterns of test ids, except that brackets are literal.

    `signatures` are those seen in its failures; empty if none is recorded.
    """

    id: str
    subject: str
    tests: tuple[str, ...]
    affected: tuple[Affected, ...]
    commit: str = ""
    note: str = ""
    commit_unknown: str = ""                # why there is no commit
    signatures: tuple[str, ...] = ()

    @property
    def patterns(self) -> list[str]:
        """The patterns of its tests for fnmatch(3), brackets escaped."""
        return [pattern.replace("[", "[[]") for pattern in self.tests]

    def shows_in(self, test: str) -> bool:
        return any(fnmatch.fnmatchcase(test, pattern) for pattern in self.patterns)

    def affects(self, version: str) -> bool:
        return any(each.holds(version) for each in self.affected)

    def is_shown_by(self, signature: str) -> bool:
        """Whether a failure is this issue; if no signature is recorded, any is."""
        return not self.signatures or any(matches(recorded, signature) for recorded in self.signatures)

    def fixed_in(self, version: str) -> str | None:
        """The first version with the fix: where the range that holds the kernel ends, else of the kernel's own series if that has one, else
        of the next; None if there is none."""
        if held := next((each.fixed for each in self.affected if each.holds(version)), ""):
            return held
        key = version_key(version)
        fixes = [each.fixed for each in self.affected if each.fixed]
        same = [fix for fix in fixes if version_key(fix)[:2] == key[:2]]
        later = sorted((fix for fix in fixes if version_key(fix) > key), key=version_key)
        return next(iter(same + later), None)

    def __str__(self) -> str:
        return f"{self.subject}" + (f" ({self.commit})" if self.commit else "")


@cache
def load(path: Path = FILE, with_signatures: bool = True) -> tuple[Issue, ...]:
    """The entries of the file.  Raises KnownIssuesError."""
    issues = read_entries(path, "issue", _TABLE, _issue, KnownIssuesError)
    if not with_signatures:
        return tuple(issues)
    recorded = read_signatures(path.with_name(SIGNATURES))
    if unknown := set(recorded) - {issue.id for issue in issues}:
        raise KnownIssuesError(f"{SIGNATURES}: unknown issue id {min(unknown)}: not in {path.name}; ./kdrift known --record removes it")
    return tuple(replace(issue, signatures=tuple(recorded.get(issue.id, ()))) for issue in issues)


def read_signatures(path: Path) -> dict[str, dict[str, list[str]]]:
    """By issue, each signature and the versions that showed it.  Raises KnownIssuesError."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise KnownIssuesError(f"{path.name}: {error}") from None
    if not isinstance(found, dict):
        raise KnownIssuesError(f"{path.name}: not written by ./kdrift known --record")
    for name, signatures in found.items():
        if not isinstance(signatures, dict) or not all(isinstance(versions, list) and all(isinstance(each, str) for each in versions)
                                                       for versions in signatures.values()):
            raise KnownIssuesError(f"{path.name}: {one_line(name)}: not written by ./kdrift known --record")
    return found


def _issue(entry: dict[str, Any]) -> Issue:
    issue = Issue(entry["id"], entry["subject"], tuple(entry["tests"]), tuple(parse_range(text) for text in entry["kernels"]),
                  entry.get("commit", ""), entry.get("note", ""), entry.get("commit_unknown", ""))
    if not issue.commit and not issue.commit_unknown and not issue.subject.startswith(NO_FIX):
        raise ValueError("needs 'commit', the mainline hash, or 'commit_unknown' with the reason why there is none")
    return issue


def parse_range(text: str) -> Affected:
    """`FIRST..FIXED`.  Raises ValueError."""
    first, dots, fixed = text.partition("..")
    if not dots:
        raise ValueError(f"{text!r} is not a version range FIRST..FIXED")
    for end in (first, fixed):
        if end:
            version_key(end)
    return Affected(first, fixed)


def listed(test: str, version: str) -> list[Issue]:
    """The issues for which this test may fail on that kernel."""
    return [issue for issue in load() if issue.affects(version) and issue.shows_in(test)]


def known(test: str, version: str, signature: str) -> Issue | None:
    """The issue that a failure with this signature shows; issues with recorded signatures come before those without."""
    shown = [issue for issue in listed(test, version) if issue.is_shown_by(signature)]
    return next(iter(sorted(shown, key=lambda issue: not issue.signatures)), None)


def candidates(test: str, version: str) -> list[str]:
    """Fixes that a kernel on which this test failed may lack, from entries for the same test, and where they first appeared."""
    found = []
    for issue in load():
        if issue.shows_in(test) and not issue.affects(version):
            fixed = issue.fixed_in(version)
            found.append(f"{issue}" + (f", in {fixed} and later" if fixed else ""))
    return found
