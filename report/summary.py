"""summary.md: the verdict for a pull request or a job's page."""
from collections.abc import Iterable, Sequence

from report.classes import NEW
from report.results import KernelResult, TestResult
from report.table import SIGNS, issue_text
from report.verdict import Comparison

MOST_ROWS = 50                              # of one table; a job's page has its limits, and so has a reader


def summary(kernels: Sequence[KernelResult], comparisons: Sequence[Comparison]) -> str:
    """Verdict and reasons of each comparison, or what went wrong on each kernel; then a table of the kernels."""
    blocks = ["# kdrift"]
    for comparison in comparisons:
        blocks += _comparison(comparison)
    if not comparisons:
        for kernel in kernels:
            bad = [test for test in kernel.tests if test.outcome in ("failed", "crashed", "lost", "known", "fixed")]
            blocks += _table(kernel.label, ("test", "outcome", "seen"), ((test.id, test.outcome, _why(test, kernel)) for test in bad))
    blocks += _table("Kernels", ("kernel", "release", *SIGNS, "error"), (
        (kernel.label, kernel.release, *(kernel.count(outcome) for outcome in SIGNS), kernel.error or "") for kernel in kernels))
    return "\n\n".join(blocks) + "\n"


def _comparison(comparison: Comparison) -> list[str]:
    old, new = comparison.old, comparison.new
    mark = "✅" if comparison.judged and comparison.ok else "❌"
    blocks = [f"**{mark} {_cell(comparison.headline())}**"]
    blocks += [f"- {_cell(line)}" for line in comparison.incomplete()]
    blocks += _table("Regressions", ("test", "was", "is", "seen"),
                     ((now.id, was.outcome, now.outcome, _why(now, new)) for was, now in comparison.regressions))
    blocks += _table("Gone", ("test", "lacks"), ((now.id, _why(now, new)) for _was, now in comparison.gone))
    blocks += _table("Fixed", ("test", "was", "issue"), ((was.id, was.outcome, _why(was, old)) for was, _now in comparison.fixes))
    blocks += _table("Drift", ("measurement",), ((line,) for line in comparison.drift))
    blocks += _table("Traffic", ("test", "seen"), ((name, "; ".join(moved)) for name, moved in comparison.traffic))
    blocks += _table("Known on both", ("test", "issue"), ((now.id, _why(now, new)) for _was, now in comparison.known))
    blocks += _table("New", ("test", "the old kernel lacks"), ((entry.id, entry.why) for entry in comparison.of(NEW)))
    blocks += _table("Not judged", ("tests", "why", "for example"), ((len(names), why, names[0]) for why, names in comparison.unjudged.items()))
    return blocks


def _why(test: TestResult, kernel: KernelResult) -> str:
    found = issue_text(test, kernel) or (test.message.splitlines() or [""])[0]
    return "; may lack: ".join([found, *test.candidates])


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    rows = list(rows)
    if not rows:
        return []
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(each) for each in row)} |" for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        lines.append(f"| and {len(rows) - MOST_ROWS} more |{' |' * (len(columns) - 1)}")
    return [f"## {title}", "\n".join(lines)]


def _cell(value: object) -> str:
    """Text that neither ends the cell nor becomes markup."""
    text = " ".join(str(value).split())
    return "".join("\\" + char if char in "\\|`*_<>[]" else char for char in text)
