"""Old kernel against new: the class of each test, and why.  Every test of either side is in exactly one class."""
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from report import chance, expected
from report.changes import Kind, change_lines, changes
from report.classes import CHANGED, CLASSES, DRIFT, FIXED, GONE, KNOWN, MATRIX, NEW, REGRESSION, SAME, UNJUDGED, outcome, plural, words
from report.confirmation import certainty
from report.measured import moved
from report.results import KernelResult, TestResult
from report.table import issue_text, parameters

# Words of --fail-on: classes, and `unexplained`, a change of behaviour without an explanation.
UNEXPLAINED = "unexplained"
FAIL_ON = (REGRESSION, GONE, DRIFT, CHANGED, UNEXPLAINED, KNOWN, "unjudged")
FAIL_BY_DEFAULT = (REGRESSION, GONE)
MOST_NAMES = 3                              # of tests listed under one reason, on a terminal


@dataclass
class Entry:
    """One test: `kind` is its class, `why` the reason for it, if any; `was` or `now` is None where it did not run."""

    id: str
    kind: str
    was: TestResult | None
    now: TestResult | None
    why: str = ""

    @property
    def both(self) -> tuple[TestResult, TestResult]:
        """Its results; one that did not run on both kernels is UNJUDGED, and has no two."""
        assert self.was and self.now
        return self.was, self.now

    @property
    def lacking(self) -> bool:
        """Both kernels lack the feature for which it was skipped: the same, but nothing was tested."""
        return self.kind == SAME and self.both[1].outcome == "skipped"


@dataclass
class Comparison:
    """A kernel against an older one.  `exact` compares measurements without their tolerances."""

    old: KernelResult
    new: KernelResult
    fail_on: Sequence[str] = FAIL_BY_DEFAULT
    exact: bool = False
    entries: list[Entry] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)                                 # a line per measurement that moved
    changes: list[Kind] = field(default_factory=list)                               # of packets, counters and log lines
    code: list[str] = field(default_factory=list)                                  # lines about the code that changed, and who executes it
    without_traffic: int = 0                                                        # tests that passed on both, one side without traffic

    def of(self, *kinds: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind in kinds]

    def pairs(self, kind: str) -> list[tuple[TestResult, TestResult]]:
        return [entry.both for entry in self.of(kind)]

    @property
    def counts(self) -> Counter[str]:
        """Tests per class; the sum is the number of tests."""
        return Counter(entry.kind for entry in self.entries)

    @property
    def regressions(self) -> list[tuple[TestResult, TestResult]]:
        return self.pairs(REGRESSION)

    @property
    def gone(self) -> list[tuple[TestResult, TestResult]]:
        return self.pairs(GONE)

    @property
    def fixes(self) -> list[tuple[TestResult, TestResult]]:
        return self.pairs(FIXED)

    @property
    def known(self) -> list[tuple[TestResult, TestResult]]:
        """Listed for both kernels."""
        return self.pairs(KNOWN)

    @property
    def unexplained(self) -> list[str]:
        """Changes of behaviour without an explanation, in words."""
        return [kind.text for kind in self.changes if not (kind.vocabulary or kind.expected)]

    @property
    def changed(self) -> set[str]:
        """Tests that passed on both with different behaviour; vocabulary does not count."""
        return {test for kind in self.changes if not kind.vocabulary for test in kind.tests}

    @property
    def unjudged(self) -> dict[str, list[str]]:
        """Tests that are not judged, by reason, the most frequent first."""
        return dict(sorted(_by_reason(self.of(UNJUDGED)).items(), key=lambda item: -len(item[1])))

    @property
    def lacking(self) -> dict[str, list[str]]:
        """Tests by the feature that both kernels lack."""
        return _by_reason([entry for entry in self.entries if entry.lacking])

    @property
    def judged(self) -> int:
        """Number of tests about which the comparison says something."""
        return sum(entry.kind != UNJUDGED and not entry.lacking for entry in self.entries)

    @property
    def failing(self) -> dict[str, int]:
        """Findings that `fail_on` names, with their numbers."""
        # A test that drifted may have changed too.
        found = {**self.counts, CHANGED: len(self.changed), UNEXPLAINED: len(self.unexplained), "unjudged": self.counts[UNJUDGED]}
        return {kind: found[kind] for kind in self.fail_on if found.get(kind)}

    @property
    def ok(self) -> bool:
        """Nothing that `fail_on` names was found; that is no success if nothing was `judged`."""
        return not self.failing

    @property
    def state(self) -> str:
        """good, bad, or unsure: nothing was judged, or nothing failed but the run is incomplete."""
        if not self.judged:
            return "unsure"
        return "bad" if not self.ok else "unsure" if self.incomplete() else "good"

    def incomplete(self) -> list[str]:
        """What ended early, one line each."""
        lines = []
        for kernel in (self.old, self.new):
            if kernel.error:
                lines.append(f"{kernel.label}: {_first(kernel.error)}")
            if kernel.unrun:
                lines.append(f"{kernel.label}: ended early, {tests(len(kernel.unrun))} did not run")
        return lines

    def headline(self) -> str:
        """The verdict in one line, with the sums."""
        if not self.judged:
            head = "nothing was judged"
        else:
            head = ", ".join(plural(self.counts[kind], kind) for kind in (REGRESSION, GONE) if self.counts[kind]) or "no regression"
        return f"{self.old.label} -> {self.new.label}: {head}{', incomplete' if self.incomplete() else ''}, {self.sums()}"

    def sums(self) -> str:
        """The number of tests in each class."""
        counts = ", ".join(plural(self.counts[kind], kind) for kind in CLASSES if self.counts[kind])
        return tests(len(self.entries)) + (f": {counts}" if counts else "")

    def lines(self) -> list[str]:
        """The verdict first, then its reasons."""
        return [self.headline(), *(f"  {kind:11} {text}".rstrip() for kind, text in self._reasons())]

    def _reasons(self) -> Iterator[tuple[str, str]]:
        yield from (("incomplete", line) for line in self.incomplete())
        for old, new in self.regressions:
            yield "regression", f"{new.id}: {old.outcome} -> {new.outcome}: {issue_text(new, self.new) or _first(new.message)}"
            if old.outcome == "known":
                yield "", f"  differs from the known issue on {self.old.label}: {issue_text(old, self.old)}"
            yield from (("", f"  {line}") for line in certainty(new, self.new))
            yield from (("", f"  may lack: {fix}") for fix in new.candidates)
        for why, names in _by_reason(self.of(GONE)).items():
            yield from _folded(GONE, why, names)
        for old, new in self.fixes:
            text = issue_text(old, self.old)
            yield "fixed", f"{new.id}: {old.outcome} -> {new.outcome}" + (f": {text}" if text else "")
        yield from (("code", line) for line in self.code)
        yield from (("drift", line) for line in self.drift)
        yield from change_lines(self.changes)
        if self.without_traffic:
            yield "", f"traffic of {self.without_traffic} tests was not compared: recorded on one kernel only"
        for why, names in _by_reason(self.of(NEW)).items():
            yield from _folded(NEW, why, names)
        yield from (("known", f"{new.id}: on both: {issue_text(new, self.new)}") for _old, new in self.known)
        for why, names in self.lacking.items():
            yield from _folded(SAME, f"skipped on both: {why}", names)
        for why, names in self.unjudged.items():
            yield from _folded(UNJUDGED, why, names)


def fail_on(text: str) -> tuple[str, ...]:
    """Parse the words of --fail-on.  Raises ValueError."""
    found = tuple(word.strip() for word in text.split(","))
    if unknown := [word for word in found if word not in FAIL_ON]:
        raise ValueError(f"unknown class {unknown[0]!r}: expected {', '.join(FAIL_ON)}")
    return found


def compare_all(kernels: Sequence[KernelResult], fail_on: Sequence[str] = FAIL_BY_DEFAULT, exact: bool = False) -> list[Comparison]:
    """Compare each kernel with the first."""
    return [compare(kernels[0], new, fail_on, exact) for new in kernels[1:]]


def compare(old: KernelResult, new: KernelResult, fail_on: Sequence[str] = FAIL_BY_DEFAULT, exact: bool = False) -> Comparison:
    """Compare test by test; no test of either side is left out."""
    result = Comparison(old, new, fail_on, exact)
    before, after = old.by_id(), new.by_id()
    for name in dict.fromkeys([*before, *old.unrun, *after, *new.unrun]):
        was, now = before.get(name), after.get(name)
        entry = Entry(name, MATRIX[outcome(was), outcome(now)], was, now)
        if was and now and entry.lacking and _first(was.message) != _first(now.message):
            entry.kind = UNJUDGED           # skipped for different features
        if was is None or now is None or entry.kind == UNJUDGED:
            entry.why = _why_not(result, was, now, name)
        elif entry.lacking:
            entry.why = now.message
        elif entry.kind == SAME:
            entry.kind = _in_detail(result, was, now)
        elif entry.kind == REGRESSION:
            result.drift += _drift(result, was, now, finished=False)
        elif entry.kind in (GONE, NEW):
            entry.why = (now if entry.kind == GONE else was).message
        result.entries.append(entry)
    result.changes = changes(old, new, chance.load(), expected.explain(old, new))
    changed = result.changed
    for entry in result.entries:
        if entry.kind == SAME and entry.id in changed:
            entry.kind = CHANGED
    return result


def _in_detail(result: Comparison, was: TestResult, now: TestResult) -> str:
    """The class of a test that passed on both, from its measurements."""
    drift = _drift(result, was, now)
    result.drift += drift
    if bool(was.traffic) != bool(now.traffic):
        result.without_traffic += 1
    return DRIFT if drift else SAME


def _drift(result: Comparison, was: TestResult, now: TestResult, finished: bool = True) -> list[str]:
    """A line per measurement that moved; a failed test has not `finished`, and may lack its last ones."""
    return [f"{name} {parameters(now.id)}".rstrip() + f": {change}"
            for name, change in moved(was.measurements, now.measurements, result.exact, finished)]


def _why_not(result: Comparison, was: TestResult | None, now: TestResult | None, name: str) -> str:
    """Why a test is not judged; tests with the same cause get the same reason."""
    sides = [_absence(kernel, test, name) for kernel, test in ((result.old, was), (result.new, now))]
    if was and now and was.outcome == now.outcome == "skipped":
        if was.message == now.message:
            return _first(now.message) or "skipped"
        return f"{result.old.label}: {_first(was.message)}; {result.new.label}: {_first(now.message)}"
    return "; ".join(filter(None, sides))


def _absence(kernel: KernelResult, test: TestResult | None, name: str) -> str:
    if test is None:
        cause = "the run ended early" if name in kernel.unrun else _first(kernel.error or "") or "no such test in that run"
        return f"not run on {kernel.label}: {cause}"
    if test.outcome == "skipped":
        return f"skipped on {kernel.label}: {_first(test.message)}"
    if test.outcome in ("passed", "fixed"):
        return ""
    return f"{words(test)} on {kernel.label}" + (f": {_first(test.message)}" if test.message else "")


def tests(count: int) -> str:
    """`1 test`, `2 tests`."""
    return f"{count} test{'s' * (count != 1)}"


def _by_reason(entries: Sequence[Entry]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        found.setdefault(_first(entry.why), []).append(entry.id)
    return found


def _folded(kind: str, why: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    if len(names) == 1:
        yield kind, f"{names[0]}: {why}"
        return
    yield kind, f"{len(names)} tests: {why}"
    yield from (("", f"  {name}") for name in names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        yield "", f"  and {len(names) - MOST_NAMES} more, see the report"


def _first(text: str) -> str:
    return text.splitlines()[0] if text else ""
