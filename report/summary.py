"""summary.md: the verdict for a pull request or a CI job's page."""
from collections.abc import Iterable, Sequence

from report.changes import Kind, counted
from report.classes import NEW
from report.kinds import CELL
from report.results import KernelResult, TestResult
from report.table import SIGNS, issue_text
from report.verdict import Comparison

MOST_ROWS = 50                              # of one table; a CI job's page is limited in size
MOST_LINES = 59                             # of one comparison; index.html has the rest
FEW = 1                                     # rows of a table of minor interest
_AROUND = 6                                 # lines of a table besides its rows: title, columns, what is left out
MARKS = {"good": "✅", "bad": "❌", "unsure": "❔"}


def summary(kernels: Sequence[KernelResult], comparisons: Sequence[Comparison]) -> str:
    """Verdict and reasons of each comparison, or what went wrong on each kernel; then a table of the kernels."""
    blocks = ["# kdrift"]
    for comparison in comparisons:
        blocks += _comparison(comparison, len(kernels) + _AROUND)
    if not comparisons:
        for kernel in kernels:
            bad = [test for test in kernel.tests if test.outcome in ("failed", "crashed", "lost", "known", "fixed")]
            blocks += _table(kernel.label, ("test", "outcome", "message"), ((test.id, test.outcome, _why(test, kernel)) for test in bad))
    blocks += _table("Kernels", ("kernel", "release", "verified by", *SIGNS, "error"), (
        (kernel.label, kernel.release, kernel.verified or "not verified", *(kernel.count(outcome) for outcome in SIGNS), kernel.error or "")
        for kernel in kernels))
    return "\n\n".join(blocks) + "\n"


def _comparison(comparison: Comparison, room: int) -> list[str]:
    """`room` lines are reserved for the rest."""
    old, new = comparison.old, comparison.new
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[object]]]] = [
        ("Regressions", ("test", "old", "new", "message"),
         [(now.id, was.outcome, now.outcome, _why(now, new)) for was, now in comparison.regressions]),
        ("Gone", ("test", "missing feature"), [(now.id, _why(now, new)) for _was, now in comparison.gone]),
        (f"Changes: {counted(comparison.changes)}", ("change", "explanation or example"),
         [_change(kind) for kind in comparison.changes]),
        ("Fixed", ("test", "old", "issue"), [(was.id, was.outcome, _why(was, old)) for was, _now in comparison.fixes]),
        ("Drift", ("measurement",), [(line,) for line in comparison.drift]),
        ("Known on both kernels", ("test", "issue"), [(now.id, _why(now, new)) for _was, now in comparison.known]),
        ("New", ("test", "missing on the old kernel"), [(entry.id, entry.why) for entry in comparison.of(NEW)]),
        ("Not judged, or skipped on both", ("tests", "reason", "example"),
         [*((len(names), why, names[0]) for why, names in comparison.unjudged.items()),
          *((len(names), f"skipped on both: {why}", names[0]) for why, names in comparison.lacking.items())]),
    ]
    tables = [table for table in tables if table[2]]
    wanted = [len(rows) if title.startswith(("Regressions", "Gone", "Changes")) else min(len(rows), FEW)
              for title, _columns, rows in tables]
    rows = _shares(wanted, MOST_LINES - room - 4 - len(comparison.incomplete()) - _AROUND * len(tables))
    blocks = [f"**{MARKS[comparison.state]} {_cell(comparison.headline())}**"]
    blocks += [f"- {_cell(line)}" for line in comparison.incomplete()]
    for (title, columns, cells), most in zip(tables, rows, strict=True):
        blocks += _table(title, columns, cells, most)
    return [*blocks, "Full report: index.html."]


def _change(kind: Kind) -> tuple[str, object]:
    example = kind.example[0] if kind.rank == CELL else f"{kind.example[0]}: {kind.example[1]}"
    return kind.text, kind.expected or example


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """How many of `room` rows each table gets; larger tables share what small ones leave."""
    found = [0] * len(wanted)
    for left, place in zip(range(len(wanted), 0, -1), sorted(range(len(wanted)), key=wanted.__getitem__), strict=True):
        found[place] = min(wanted[place], max(1, room // left))
        room -= found[place]
    return found


def _why(test: TestResult, kernel: KernelResult) -> str:
    found = issue_text(test, kernel) or (test.message.splitlines() or [""])[0]
    return "; may lack: ".join([found, *test.candidates])


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], most: int = MOST_ROWS) -> list[str]:
    rows = list(rows)
    if not rows:
        return []
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(each) for each in row)} |" for row in rows[:most]]
    if len(rows) > most:
        lines.append(f"| and {len(rows) - most} more |{' |' * (len(columns) - 1)}")
    return [f"## {_cell(title)}", "\n".join(lines)]


def _cell(value: object) -> str:
    """Text that neither ends the cell or heading nor becomes markup."""
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(str(value).split()))
    return "".join("\\" + char if char in "\\|`*_<>[]&!" or (char == "#" and place in (0, len(text) - 1)) else char
                   for place, char in enumerate(text))
