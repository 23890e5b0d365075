"""The tables at the end of a run: tests by kernels, measurements by kernels, and the kernels themselves."""
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from report import known
from report.results import KernelResult, TestResult

SIGNS = {"passed": ("✓", "green"), "failed": ("F", "bold red"), "skipped": ("s", "yellow"), "crashed": ("C", "bold magenta"),
         "lost": ("L", "bold cyan"), "known": ("k", "blue"), "fixed": ("x", "bold green")}
LEGEND = ("✓ passed  F failed  s skipped  C kernel crashed  L machine lost  k known issue  x fixed (listed, but passed)\n"
          "· not run; one sign per parameter set")


def outcome_table(kernels: Sequence[KernelResult]) -> Table:
    """A row per test function, a column per kernel, a sign per parameter set."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("test", overflow="fold")
    for kernel in kernels:
        table.add_column(kernel.label, no_wrap=True)
    functions: dict[str, list[str]] = {}
    for kernel in kernels:
        for test in kernel.tests:
            ids = functions.setdefault(test.id.partition("[")[0], [])
            if test.id not in ids:
                ids.append(test.id)
    found = [kernel.by_id() for kernel in kernels]
    for function, ids in functions.items():
        cells = [Text.assemble(*(SIGNS[tests[name].outcome] if name in tests else "·" for name in ids)) for tests in found]
        table.add_row(Text(function.removeprefix("tests/")), *cells)
    return table


def measurement_table(kernels: Sequence[KernelResult]) -> Table | None:
    """A row per measurement, None when nothing was measured."""
    seen: dict[tuple[str, str, str], dict[int, float]] = {}
    for number, kernel in enumerate(kernels):
        for test in kernel.tests:
            for one in test.measurements:
                seen.setdefault((one["name"], parameters(test.id), one["unit"]), {})[number] = one["value"]
    if not seen:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measurement")
    for kernel in kernels:
        table.add_column(kernel.label, justify="right")
    table.add_column("")
    for (name, variant, unit), values in seen.items():
        cells = [f"{values[number]:.6g}" if number in values else "" for number in range(len(kernels))]
        table.add_row(Text(f"{name} {variant}".rstrip()), *cells, unit)
    return table


def parameters(test: str) -> str:
    """The parameter set of a test id, in brackets, or ""."""
    return test[test.index("["):] if "[" in test else ""


def kernel_lines(kernels: Sequence[KernelResult]) -> list[str]:
    """What ran where, and how it went, one line per kernel."""
    lines = []
    for kernel in kernels:
        counts = ", ".join(f"{kernel.count(outcome)} {outcome}" for outcome in SIGNS if kernel.count(outcome))
        where = f"{kernel.release} {kernel.clock} clock".lstrip() + (f", seed {kernel.seed}" if kernel.seed != 1 else "")
        where += f", {kernel.accel}, QEMU {kernel.qemu}" if kernel.qemu else ""
        where += f"; {kernel.trust}"
        left_out = f", {len(kernel.unrun)} not run" if kernel.unrun else ""
        lines.append(f"{kernel.label}: {counts or 'no test ran'}{left_out} ({where})")
        lines += nothing_judged(kernel)
        if kernel.error:
            lines += [f"{kernel.label}: {line}" for line in kernel.error.splitlines()]
    return lines


def nothing_judged(kernel: KernelResult) -> list[str]:
    """A line for a kernel about which no test says anything, with the most frequent reason."""
    if kernel.ran or not kernel.tests:
        return []
    reasons = Counter((test.message.splitlines() or [test.outcome])[0] for test in kernel.tests)
    [(why, count)] = reasons.most_common(1)
    outcomes = " or ".join(outcome for outcome in ("skipped", "lost") if kernel.count(outcome))
    share = "" if count == len(kernel.tests) else f"{count} of {len(kernel.tests)} "
    return [f"{kernel.label}: nothing was judged, every test was {outcomes}: {share and f'({share.strip()}) '}{why}"]


def issue_lines(kernels: Sequence[KernelResult]) -> list[str]:
    """Known issues seen on these kernels, and where known_issues.toml is wrong."""
    lines = []
    for kernel in kernels:
        for test in kernel.tests:
            if test.outcome == "known":
                lines.append(f"{kernel.label}: known {test.id}: {issue_text(test, kernel)}")
            elif test.outcome == "fixed":
                lines.append(f"{kernel.label}: fixed {test.id}: passes, although {test.issue} is listed for this kernel: "
                             "correct its range in known_issues.toml")
            elif test.listed:
                lines.append(f"{kernel.label}: {test.outcome} {test.id}: {issue_text(test, kernel)}")
    return lines


def issue_text(test: TestResult, kernel: KernelResult) -> str:
    """The listed issue that a test shows on a kernel, and the first version without it; "" if none is listed.

    If the signature differs from the listed issue's: the failure, and the id of that issue.
    """
    if test.listed and not test.issue:
        return f"{first_line(test.message)}; signature differs from known issue {test.listed}"
    issue = next((issue for issue in known.load() if issue.id == test.issue), None)
    if issue is None:
        return test.issue
    fixed = issue.fixed_in(kernel.version or kernel.release)
    unsure = "; no signature recorded: any failure of the test counts as this issue" if not issue.signatures else ""
    return f"{issue}" + (f"; fixed in {fixed}" if fixed else "") + unsure


def first_line(text: str) -> str:
    return text.partition("\n")[0]


def render(item: object, width: int, colour: bool) -> str:
    """A table as text for a terminal of that width."""
    console = Console(width=width, force_terminal=colour, no_color=not colour, highlight=False)
    with console.capture() as capture:
        console.print(item)
    return capture.get()
