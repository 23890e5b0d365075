"""known_issues.toml: bugs of released kernels that a test of this suite shows, and the kernels that have them."""
import fnmatch
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).parents[1] / "known_issues.toml"
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:[~-]?rc(\d+))?(?:[^-]*-(\d+))?")
_RELEASED = 1 << 30                         # in the place of a release candidate's number


class KnownIssuesError(Exception):
    """The file cannot be used; one line says where and why."""


@cache
def version_key(version: str) -> tuple[int, ...]:
    """Of a Debian package's version or a kernel's release, such that older compares less; `6.12-rc3` comes before `6.12`.

    Raises ValueError.
    """
    match = _VERSION.match(version)
    if match is None:
        raise ValueError(f"{version!r} is not a kernel's version")
    major, minor, patch, candidate, revision = match.groups()
    return int(major), int(minor), int(patch or 0), int(candidate or _RELEASED), int(revision or 0)


@dataclass(frozen=True)
class Affected:
    """The kernels from `first` up to, not including, `fixed`; an end that is empty is open."""

    first: str
    fixed: str

    def holds(self, version: str) -> bool:
        key = version_key(version)
        return (not self.first or version_key(self.first) <= key) and (not self.fixed or key < version_key(self.fixed))


@dataclass(frozen=True)
class Issue:
    """One entry.  `tests` are patterns of test ids as fnmatch(3) has them, save that brackets stand for themselves."""

    id: str
    subject: str
    tests: tuple[str, ...]
    affected: tuple[Affected, ...]
    commit: str = ""
    note: str = ""

    @property
    def patterns(self) -> list[str]:
        """Those of its tests, as fnmatch(3) has them."""
        return [pattern.replace("[", "[[]") for pattern in self.tests]

    def shows_in(self, test: str) -> bool:
        return any(fnmatch.fnmatchcase(test, pattern) for pattern in self.patterns)

    def affects(self, version: str) -> bool:
        return any(each.holds(version) for each in self.affected)

    def fixed_in(self, version: str) -> str | None:
        """The first version with the fix, of the kernel's own series where that has one, else of the next; None for none."""
        key = version_key(version)
        fixes = [each.fixed for each in self.affected if each.fixed]
        same = [fix for fix in fixes if version_key(fix)[:2] == key[:2]]
        later = sorted((fix for fix in fixes if version_key(fix) > key), key=version_key)
        return next(iter(same + later), None)

    def __str__(self) -> str:
        return f"{self.subject}" + (f" ({self.commit})" if self.commit else "")


@cache
def load(path: Path = FILE) -> tuple[Issue, ...]:
    """The entries of the file.  Raises KnownIssuesError."""
    try:
        entries = tomllib.loads(path.read_text()).get("issue", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise KnownIssuesError(f"{path.name}: {error}") from None
    issues = []
    for number, entry in enumerate(entries, 1):
        try:
            issues.append(_issue(entry))
        except (KeyError, TypeError, ValueError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise KnownIssuesError(f"{path.name}: issue {number} ({entry.get('id', 'without an id')}): {what}") from None
    names = [issue.id for issue in issues]
    if twice := {name for name in names if names.count(name) > 1}:
        raise KnownIssuesError(f"{path.name}: issue {min(twice)} stands there twice")
    return tuple(issues)


def _issue(entry: dict) -> Issue:
    if unknown := set(entry) - {"id", "subject", "tests", "kernels", "commit", "note"}:
        raise ValueError(f"{min(unknown)!r} is no field of an issue")
    return Issue(entry["id"], entry["subject"], tuple(entry["tests"]), tuple(_affected(text) for text in entry["kernels"]),
                 entry.get("commit", ""), entry.get("note", ""))


def _affected(text: str) -> Affected:
    first, dots, fixed = text.partition("..")
    if not dots:
        raise ValueError(f"{text!r} is not a range of versions, FIRST..FIXED")
    for end in (first, fixed):
        if end:
            version_key(end)
    return Affected(first, fixed)


def known(test: str, version: str) -> Issue | None:
    """The issue for which this test fails on that kernel."""
    return next((issue for issue in load() if issue.affects(version) and issue.shows_in(test)), None)


def candidates(test: str, version: str) -> list[str]:
    """Fixes that a kernel on which this test failed may lack: those of entries for the same test, and where they came first."""
    found = []
    for issue in load():
        if issue.shows_in(test) and not issue.affects(version):
            fixed = issue.fixed_in(version)
            found.append(f"{issue}" + (f", in {fixed} and later" if fixed else ""))
    return found
