"""`./kdrift known --check`: try the ranges of known_issues.toml on the packages at their ends.

It runs the listed tests on the last package with the bug and the first without it; and on the last one before the range, if that
begins at a stable release. The recorded signature must show on the first and not on the others. One boot serves up to `BATCH`
entries. The results stay in a directory: what is there is not run again.
"""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from report.known import Affected, Issue, version_key
from report.reading import read
from report.record import signatures_of
from report.results import KernelResult, TestResult

BATCH = 10                                  # entries per boot
PROVED, WRONG, OPEN = "proved", "wrong", "not checked"


@dataclass(frozen=True)
class Span:
    """A range of an entry, and the package versions at its ends; None where there is no package."""

    issue: Issue
    affected: Affected
    bad: str | None                         # the last with the bug
    good: str | None                        # the first without it
    before: str | None                      # the last one before the range, if that begins at a stable release

    def __str__(self) -> str:
        return f"{self.issue.id} {self.affected.first}..{self.affected.fixed}"

    @property
    def versions(self) -> list[str]:
        return [version for version in (self.before, self.bad, self.good) if version]


def spans(issue: Issue, packages: Iterable[str]) -> list[Span]:
    """The entry's ranges.  `packages` are the available versions; of rebuilds of one version, 6.1.176-1~deb11u1, the original counts."""
    packages = sorted({version_key(each): each for each in sorted(packages, key=lambda each: (-len(each), each))}.values(), key=version_key)
    found = []
    for affected in issue.affected:
        bad = [each for each in packages if affected.holds(each)]
        good = [each for each in packages
                if affected.fixed and not issue.affects(each) and version_key(each) >= version_key(affected.fixed)]
        # A start such as 5.10 or 6.15 is known from the source; 6.12.74 names the stable release that brought the bug.
        stable = affected.first.count(".") == 2
        before = [each for each in packages if stable and not issue.affects(each) and version_key(each) < version_key(affected.first)
                  and each.split(".")[:2] == affected.first.split(".")[:2]]
        found.append(Span(issue, affected, *(next(iter(each), None) for each in (bad[::-1], good, before[::-1]))))
    return found


@dataclass(frozen=True)
class Batch:
    """One boot of a kernel, for these entries and tests."""

    version: str
    issues: tuple[str, ...]
    tests: tuple[str, ...]


def batches(wanted: Sequence[Span], tests: Sequence[str], stored: dict[str, dict[str, TestResult]]) -> list[Batch]:
    """What is still to be run; `tests` are all ids of the suite, `stored` the results by version and id."""
    missing: dict[str, dict[str, list[str]]] = {}
    for span in wanted:
        ids = [test for test in tests if span.issue.shows_in(test)]
        for version in span.versions:
            if any(test not in stored.get(version, {}) for test in ids):
                missing.setdefault(version, {})[span.issue.id] = ids
    found = []
    for version, entries in sorted(missing.items(), key=lambda item: version_key(item[0])):
        names = list(entries)
        for start in range(0, len(names), BATCH):
            part = names[start:start + BATCH]
            found.append(Batch(version, tuple(part), tuple(dict.fromkeys(test for name in part for test in entries[name]))))
    return found


def read_stored(directory: Path) -> dict[str, dict[str, TestResult]]:
    """Results by version and test id, from DIR/*/results.json.  Raises ResultsError."""
    found: dict[str, dict[str, TestResult]] = {}
    for path in sorted(directory.glob("*/results.json")):
        add(found, read(path)[1])
    return found


def add(stored: dict[str, dict[str, TestResult]], kernels: Iterable[KernelResult]) -> None:
    for kernel in kernels:
        if kernel.version and not kernel.error:
            stored.setdefault(kernel.version, {}).update(kernel.by_id())


def judge(span: Span, stored: dict[str, dict[str, TestResult]]) -> tuple[str, str]:
    """PROVED, WRONG or OPEN, and the reason."""
    if not span.issue.signatures:
        return OPEN, "no signature recorded: run ./kdrift known --record"
    if span.bad is None:
        return OPEN, "no package in the range is available"
    seen = {version: _seen(span.issue, stored.get(version, {})) for version in span.versions}
    shows, other, passes, _hidden = seen[span.bad]
    wrong = []
    if passes:
        wrong.append(f"too wide: passes on {span.bad}: {_some(passes)}")
    if other:
        wrong.append(f"different failure on {span.bad}: {_some(other)}")
    wrong += [f"too narrow: also shows on {version}: {_some(seen[version].shows)}" for version in (span.before, span.good)
              if version and seen[version].shows]
    if wrong:
        return WRONG, "; ".join(wrong)
    if not shows:
        return OPEN, f"no result for {span.bad}"
    unsure = [version for version in (span.before, span.good) if version and (seen[version].other or not seen[version].passes)]
    if unsure:
        failed = [f"different failure on {version}: {_some(seen[version].other)}" if seen[version].other
                  else f"hidden by another entry on {version}: {_some(seen[version].hidden)}" if seen[version].hidden
                  else f"no result for {version}" for version in unsure]
        return OPEN, "; ".join([f"shows on {span.bad}", *failed])
    if span.good is None:
        return PROVED, f"shows on {span.bad}, the newest available; the range is open" if not span.affected.fixed else (
            f"shows on {span.bad}; no package with the fix is available")
    return PROVED, f"shows on {span.bad}, not on {', '.join(version for version in (span.before, span.good) if version)}"


class Seen(NamedTuple):
    """Tests that showed the issue, that failed otherwise, that passed, and that showed another entry; skipped ones are left out."""

    shows: tuple[str, ...]
    other: tuple[str, ...]
    passes: tuple[str, ...]
    hidden: tuple[str, ...]


def _seen(issue: Issue, results: dict[str, TestResult]) -> Seen:
    shows: list[str] = []
    other: list[str] = []
    passes: list[str] = []
    hidden: list[str] = []
    for test in results.values():
        if not issue.shows_in(test.id):
            continue
        if test.outcome in ("passed", "fixed"):
            passes.append(test.id)
        elif texts := signatures_of(test):
            (shows if any(map(issue.is_shown_by, texts)) else hidden if test.issue not in ("", issue.id) else other).append(test.id)
    return Seen(tuple(shows), tuple(other), tuple(passes), tuple(hidden))


def _some(tests: Sequence[str]) -> str:
    return tests[0].rpartition("::")[2] + (f" and {len(tests) - 1} more" if len(tests) > 1 else "")
