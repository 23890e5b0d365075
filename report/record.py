"""`./kdrift known --record`: known_signatures.json from the results of runs."""
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from report.known import SIGNATURES, Issue, KnownIssuesError, read_signatures, version_key
from report.results import KernelResult, TestResult, write_whole
from report.signature import signature

FAILED = ("known", "failed", "crashed", "lost")
LOST_BY_HANG = "the machine was lost: hang: "
Signatures = dict[str, dict[str, list[str]]]


def signatures_of(test: TestResult) -> list[str]:
    """The signatures of its failures; none if the test did not fail, or if its machine ended because of the host.

    A hang that did not happen again may be due to what an earlier test left behind.
    """
    hung = test.message.startswith(LOST_BY_HANG)
    if test.outcome not in FAILED or test.outcome == "lost" and not hung:
        return []
    shown = test.signatures or ([] if hung and test.traceback else [signature(test.message, test.traceback)])
    return [each for each in shown if each and not each.startswith("hang:")] or [each for each in shown if each]


def record(kernels: Iterable[KernelResult], issues: Iterable[Issue], before: Signatures, anew: bool = False) -> Signatures:
    """The recorded signatures, together with those of listed tests' failures on kernels that their issues affect.

    Every such failure is recorded: the user reviews what is new. With `anew` it replaces what the same kernel showed of the same issue
    before; what other kernels showed, and what these results do not show, is kept.
    """
    issues = list(issues)
    seen = set(_seen(kernels, issues))
    replaced = {(name, version) for name, _text, version in seen} if anew else set()
    found: dict[str, dict[str, set[str]]] = {issue.id: {} for issue in issues}
    kept = ((name, text, version) for name in found for text, versions in before.get(name, {}).items() for version in versions
            if (name, version) not in replaced)
    for name, text, version in (*kept, *seen):
        found[name].setdefault(text, set()).add(version)
    return {name: {text: sorted(versions, key=version_key) for text, versions in sorted(texts.items())}
            for name, texts in sorted(found.items()) if texts}


def _seen(kernels: Iterable[KernelResult], issues: Sequence[Issue]) -> Iterator[tuple[str, str, str]]:
    """(issue, signature, version) of each failure of a listed test on a kernel that its issue affects."""
    for kernel in kernels:
        version = kernel.version or kernel.release
        affecting = [issue for issue in issues if version and issue.affects(version)]
        for test in kernel.tests:
            for issue in (issue for issue in affecting if issue.shows_in(test.id)):
                yield from ((issue.id, text, version) for text in signatures_of(test))


def rewrite(kernels: Iterable[KernelResult], issues: Iterable[Issue], directory: Path, anew: bool) -> tuple[list[str], list[str]]:
    """Write the file in that directory, whole or not at all; `anew` as in record().  Returns lines for new and for gone signatures.

    Raises KnownIssuesError, OSError.
    """
    path = directory / SIGNATURES
    kernels, issues = list(kernels), list(issues)
    before = read_signatures(path)
    if not any(_seen(kernels, issues)):
        raise KnownIssuesError("these results have no failure of a listed test: nothing recorded")
    after = record(kernels, issues, before, anew)
    write_whole(path, json.dumps(after, indent=1, ensure_ascii=False) + "\n")
    return _more(after, before), _more(before, after)


def _more(one: Signatures, other: Signatures) -> list[str]:
    """The signatures that only the first has, one per line."""
    return [f"{name}: {text} ({', '.join(versions)})" for name, texts in one.items() for text, versions in texts.items()
            if text not in other.get(name, {})]
