"""--changed: run the tests that execute a changed function; --suspects: which tests executed what has changed."""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.errors import FetchError
from common.temporary import GuardedDirectory
from kernels.extract import Kernel
from report.results import write_whole
from report.verdict import Comparison
from session.runs import KernelRun
from suspects.compare import CHANGED, NEW, Difference, compare_code
from suspects.recorded import Recorded
from suspects.recording import NotRecorded, record_executed
from suspects.told import PASSED, Executed, difference_line, number_of, suspect_lines

FIRST, ONLY = "first", "only"
REPORT = "suspects.md"
ENDED = ("crashed", "lost", "skipped")      # a test of these outcomes is not recorded: it would end the machine, or says nothing


def with_files(runs: Sequence[KernelRun]) -> dict[str, Kernel]:
    """The kernels whose code can be read, by label."""
    return {run.label: run.kernel for run in runs if run.kernel and run.kernel.key}


def check_two_kernels(option: str, runs: Sequence[KernelRun]) -> None:
    """Raises pytest.UsageError."""
    if len(with_files(runs)) < 2:
        raise pytest.UsageError(f"{option}: needs the files of an old and a new kernel")


class ByCode:
    """The tests that execute a function that changed from the first kernel to another come first, or alone.

    What they execute was recorded on one of the kernels (`./kdrift suspects`). A test without a record counts as one that does.
    """

    def __init__(self, runs: Sequence[KernelRun], how: str, say: Callable[[str], None]) -> None:
        check_two_kernels("--changed", runs)
        self._kernels, self._how, self._say = list(with_files(runs).values()), how, say

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        old, *others = self._kernels
        try:
            changed = {name for new in others for name in compare_code(old, new).of(CHANGED, NEW)}
        except FetchError as error:
            self._say(f"--changed: {error}; all tests run")
            return
        records = [Recorded(kernel) for kernel in self._kernels]

        def is_recorded(item: pytest.Item) -> bool:
            return any(item.nodeid in record for record in records)

        def executes(item: pytest.Item) -> bool:
            return any(not changed.isdisjoint(record.functions(item.nodeid)) for record in records)

        known = [item for item in items if is_recorded(item)]
        wanted = {item for item in items if not is_recorded(item) or executes(item) or item.get_closest_marker("last")}
        self._say(f"--changed: {number_of(len(changed), 'function')} changed; of {len(items)} tests "
                  f"{sum(map(executes, known))} execute one, {len(items) - len(known)} have no record and count as if they did")
        if self._how == FIRST:
            items.sort(key=lambda item: item not in wanted)
            return
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = [item for item in items if item in wanted]


@dataclass(frozen=True)
class Recorders:
    """`slots` at a time, with these devices."""

    slots: int
    devices: Sequence[str] = ()


def name_suspects(comparisons: Sequence[Comparison], kernels: Mapping[str, Kernel], machines: Recorders,
                  say: Callable[[str], None]) -> list[str]:
    """Give the comparisons what is to be said about the code that their tests executed; returns the text of the report."""
    text: list[str] = []
    with GuardedDirectory() as directory:
        for number, each in enumerate(comparisons):
            if each.old.label in kernels and each.new.label in kernels:
                try:
                    each.code, lines = _named(each, kernels, Path(directory, str(number)), machines, say)
                    text += lines
                except FetchError as error:
                    each.code = [str(error)]
    return text


def _named(comparison: Comparison, kernels: Mapping[str, Kernel], directory: Path, machines: Recorders,
           say: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """The lines of the verdict, and those of the report.  Raises CannotCompare, NotRecorded."""
    old, new = (kernels[each.label] for each in (comparison.old, comparison.new))
    found = compare_code(old, new)
    ran = [each.id for each in comparison.new.tests if each.outcome not in ENDED]
    now = record_executed(new, ran, directory / "new", machines.slots, machines.devices, say)
    passing = [each.id for each in comparison.new.tests if each.outcome in PASSED]
    executed = Executed.by(found, [now.functions(test) for test in passing])
    lines = [executed.line()]
    regressions = [after.id for before, after in comparison.regressions]
    before = [was.id for was, _now in comparison.regressions if was.outcome not in ENDED]
    try:
        was = record_executed(old, before, directory / "old", machines.slots, machines.devices, say)
    except NotRecorded as error:
        lines.append(str(error))
        was = Recorded(old)
    suspects = {test: executed.suspects({*now.functions(test), *was.functions(test)}) for test in regressions}
    for test in sorted(regressions, key=lambda test: len(suspects[test])):
        lines.append(f"{test}: {number_of(len(suspects[test]), 'suspect')}")
        lines += [f"  {line}" for line in suspect_lines(suspects[test], found.places)]
    return lines, [f"# {old.release} -> {new.release}", difference_line(found), "", executed.line(), "", *_listed(found, executed)]


def _listed(found: Difference, executed: Executed) -> list[str]:
    none = sorted(executed.by_none(), key=lambda name: (found.places[name], name))
    return ["## Executed by no passing test", *(f"- `{name}`, {found.places[name] or 'file not known'}" for name in none), "",
            "## Executed", *(f"- {line}" for line in suspect_lines(executed.suspects(executed.tests.keys() - set(none)), found.places,
                                                                     most=len(executed.tests))), ""]


def write_report(directory: Path, text: Sequence[str]) -> None:
    """Raises OSError."""
    write_whole(directory / REPORT, "\n".join(text))
