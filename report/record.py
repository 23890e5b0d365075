"""`./kdrift known --record`: known_signatures.json, from the results of runs."""
import json
from collections.abc import Iterable
from pathlib import Path

from report.known import SIGNATURES, Issue, KnownIssuesError, read_signatures, version_key
from report.results import KernelResult, TestResult, write_whole
from report.signature import signature

FAILED = ("known", "failed", "crashed", "lost")
LOST_BY_HANG = "the machine was lost: hang: "
Signatures = dict[str, dict[str, list[str]]]


def signatures_of(test: TestResult) -> list[str]:
    """What its failures show; none for a test that did not fail, or whose machine ended for a reason of the host.

    A hang that did not come again may be what an earlier test has left behind.
    """
    hung = test.message.startswith(LOST_BY_HANG)
    if test.outcome not in FAILED or test.outcome == "lost" and not hung:
        return []
    shown = test.signatures or ([] if hung and test.traceback else [signature(test.message, test.traceback)])
    return [each for each in shown if each and not each.startswith("hang:")] or [each for each in shown if each]


def record(kernels: Iterable[KernelResult], issues: Iterable[Issue], before: Signatures) -> Signatures:
    """What is recorded, together with what the failures of listed tests show on the kernels that their issues affect.

    Whatever they show is taken: who records looks at what is new.
    """
    issues = list(issues)
    found = {issue.id: {text: set(versions) for text, versions in before.get(issue.id, {}).items()} for issue in issues}
    for kernel in kernels:
        version = kernel.version or kernel.release
        if not version:
            continue
        affecting = [issue for issue in issues if issue.affects(version)]
        for test in kernel.tests:
            for issue in (issue for issue in affecting if issue.shows_in(test.id)):
                for text in signatures_of(test):
                    found[issue.id].setdefault(text, set()).add(version)
    return {name: {text: sorted(versions, key=version_key) for text, versions in sorted(texts.items())}
            for name, texts in sorted(found.items()) if texts}


def rewrite(kernels: Iterable[KernelResult], issues: Iterable[Issue], directory: Path, anew: bool) -> list[str]:
    """Write the file in that directory, whole or not at all; with `anew` nothing of what it says now is kept.  Lines that say what is new.

    Raises KnownIssuesError, OSError.
    """
    path = directory / SIGNATURES
    before = {} if anew else read_signatures(path)
    after = record(kernels, issues, before)
    if anew and not after:
        raise KnownIssuesError("these results have no failure of a listed test: nothing is changed")
    write_whole(path, json.dumps(after, indent=1, ensure_ascii=False) + "\n")
    return [f"{name}: {text} ({', '.join(versions)})" for name, texts in after.items() for text, versions in texts.items()
            if text not in before.get(name, {})]
