"""Old kernel against new: what got worse, what got better, what moved."""
from collections.abc import Sequence
from dataclasses import dataclass, field

from report.results import KernelResult, TestResult
from report.table import issue_text, parameters
from report.traffic import differences

GOOD = ("passed", "fixed")
BAD = ("known", "failed", "crashed", "lost")
# A measurement without a tolerance of its own: the clock of two kernels at different phases, and their rounding of timers.
RELATIVE_TOLERANCE = 0.01


@dataclass
class Comparison:
    """One kernel against an older one."""

    old: KernelResult
    new: KernelResult
    regressions: list[tuple[TestResult, TestResult]] = field(default_factory=list)
    fixes: list[tuple[TestResult, TestResult]] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)
    traffic: list[tuple[str, list[str]]] = field(default_factory=list)              # tests that passed with other packets or counters, and which
    known: list[tuple[TestResult, TestResult]] = field(default_factory=list)       # listed for both
    unjudged: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.regressions

    @property
    def judged(self) -> int:
        """Tests that said something of the new kernel; none where a kernel is missing."""
        if self.new.error or self.old.error:
            return 0
        return sum(test.outcome != "skipped" for test in self.new.tests)

    def headline(self) -> str:
        """The verdict in one line."""
        if not self.judged:
            head = "cannot be judged"
        else:
            head = "no regression" if self.ok else f"{len(self.regressions)} regression{'s' * (len(self.regressions) > 1)}"
        return (f"{self.old.label} -> {self.new.label}: {head}, {len(self.fixes)} fixed, {len(self.drift)} drifted, "
                f"{len(self.known)} known, {len(self.unjudged)} not judged, {self.judged} tests")

    def lines(self) -> list[str]:
        """The verdict first, then its reasons."""
        lines = [self.headline()]
        for old, new in self.regressions:
            lines.append(f"  regression  {new.id}: {old.outcome} -> {new.outcome}: {issue_text(new, self.new) or _first(new.message)}")
            lines += [f"              may lack: {fix}" for fix in new.candidates]
        for old, new in self.fixes:
            text = issue_text(old, self.old)
            lines.append(f"  fixed       {new.id}: {old.outcome} -> {new.outcome}" + (f": {text}" if text else ""))
        lines += [f"  drift       {line}" for line in self.drift]
        if self.traffic:
            lines.append(f"  traffic     not the same in {len(self.traffic)} tests that passed on both: the reports say what")
        lines += [f"  known       {new.id}: on both: {issue_text(new, self.new)}" for _old, new in self.known]
        return lines + [f"  not judged  {line}" for line in self.unjudged]


REGRESSION, LOST, NO_TESTS, NOT_BOOTED = 1, 3, 5, 125      # exit statuses; see the README. 5 is pytest's


def compare_all(kernels: Sequence[KernelResult]) -> list[Comparison]:
    """Each kernel against the first."""
    return [compare(kernels[0], new) for new in kernels[1:]]


def exit_status(kernels: Sequence[KernelResult], comparisons: Sequence[Comparison]) -> int:
    """Of a whole run: what got worse, or without a comparison what failed, then what could not be had, then what was lost."""
    if comparisons:
        worse = not all(comparison.ok for comparison in comparisons)
    else:
        worse = any(kernel.count("failed", "crashed") for kernel in kernels)
    if worse:
        return REGRESSION
    if any(kernel.error for kernel in kernels):
        return NOT_BOOTED
    if any(kernel.count("lost") for kernel in kernels):
        return LOST
    return 0 if any(kernel.tests for kernel in kernels[-1:]) else NO_TESTS


def compare(old: KernelResult, new: KernelResult) -> Comparison:
    """Compare test by test; what only one side ran, or what was bad on both, is not judged."""
    result = Comparison(old, new)
    before = old.by_id()
    for kernel in (old, new):
        if kernel.error:
            result.unjudged.append(f"{kernel.label}: {_first(kernel.error)}")
    for test in new.tests:
        was = before.get(test.id)
        if was is None:
            result.unjudged.append(f"{test.id}: not run on {old.label}")
        elif was.outcome in GOOD and test.outcome in BAD:
            result.regressions.append((was, test))
        elif was.outcome in BAD and test.outcome in GOOD:
            result.fixes.append((was, test))
        elif was.outcome == test.outcome == "known":
            result.known.append((was, test))
        elif was.outcome in BAD or test.outcome in BAD:
            result.unjudged.append(f"{test.id}: {was.outcome} on {old.label}, {test.outcome} on {new.label}: {_first(test.message or was.message)}")
        elif was.outcome in GOOD and test.outcome in GOOD:
            result.drift += _drift(was, test)
            if was.traffic and test.traffic and (moved := differences(was.traffic, test.traffic)):
                result.traffic.append((test.id, list(moved.values())))
    return result


def _drift(was: TestResult, now: TestResult) -> list[str]:
    before = {one["name"]: one for one in was.measurements}
    lines = []
    for one in now.measurements:
        old = before.get(one["name"])
        if old is None:
            continue
        tolerance = tolerance_of(one, old["value"])
        if abs(one["value"] - old["value"]) > tolerance:
            lines.append(f"{one['name']} {parameters(now.id)}: {old['value']:.6g} -> {one['value']:.6g} {one['unit']} (tolerance {tolerance:.3g})")
    return lines


def tolerance_of(measurement: dict, before: float) -> float:
    """By how much it may differ from what it was before: what it states itself, or else a share of that."""
    stated = measurement.get("tolerance")
    return RELATIVE_TOLERANCE * abs(before) if stated is None else stated


def _first(text: str) -> str:
    return text.splitlines()[0] if text else ""
