"""What a bisection asks of each kernel: does the test fail, what does it measure, or does it show one kind of change?

A question is made from what the test did on both ends, and tells of another kernel's result which of the two it is like.
"""
from dataclasses import dataclass
from typing import Protocol

from bisection.search import NEW, OLD, SKIP
from report import chance
from report.changes import moves
from report.kinds import words
from report.measured import moved
from report.results import KernelResult, Measurement, TestResult
from report.signature import matches

FAILS = ("failed", "crashed")


class NoDifference(Exception):
    """The ends do not differ in what is asked; one line says how."""


class Question(Protocol):
    """`old` and `new` say in words what is seen on either side."""

    @property
    def old(self) -> str: ...

    @property
    def new(self) -> str: ...

    def side(self, result: TestResult) -> tuple[str, str]:
        """OLD, NEW or SKIP, and in words what the kernel shows."""

    def which(self, side: str) -> str:
        """The kernels of a side: `that fails`."""


@dataclass
class Failing:
    """One end passes and the other fails, with this signature."""

    old: str
    new: str
    signature: str

    @classmethod
    def between(cls, old: TestResult, new: TestResult) -> "Failing":
        """Raises NoDifference."""
        for end, result in (("the old end", old), ("the new end", new)):
            if result.outcome not in ("passed", *FAILS):
                raise NoDifference(f"{end} is not judged, {result.outcome}: {_first(result.message)}")
        if old.outcome in FAILS and new.outcome in FAILS:
            raise NoDifference(f"the test fails on both ends: {_shown(old)}"
                               + (f"; on the new end: {_shown(new)}" if not matches(_shown(old), _shown(new)) else ""))
        if old.outcome == new.outcome:
            raise NoDifference("the test passes on both ends")
        return cls(_word(old), _word(new), _shown(old if old.outcome in FAILS else new))

    def side(self, result: TestResult) -> tuple[str, str]:
        if result.outcome == "passed":
            return (OLD if self.old == "passes" else NEW), "passes"
        if result.outcome not in FAILS:
            return SKIP, f"{result.outcome}: {_first(result.message)}"
        if not matches(self.signature, _shown(result)):
            return SKIP, f"fails otherwise: {_shown(result)}"
        return (NEW if self.old == "passes" else OLD), _word(result)

    def which(self, side: str) -> str:
        return f"that {self.old if side == OLD else self.new}"


@dataclass
class Measuring:
    """A measurement, and what it is on both ends, in the order in which the test takes it. The tolerance is in its unit; if None, it is
    the one that the test states for two runs that do the same."""

    name: str
    first: list[Measurement]
    last: list[Measurement]
    tolerance: float | None = None

    @classmethod
    def between(cls, name: str, old: TestResult, new: TestResult, tolerance: float | None = None) -> "Measuring":
        """Raises NoDifference."""
        found = cls(name, _named(old, name, tolerance), _named(new, name, tolerance), tolerance)
        if not found.first or not found.last:
            others = sorted({one["name"] for one in (*old.measurements, *new.measurements)})
            ends = [end for end, values in (("old", found.first), ("new", found.last)) if not values]
            raise NoDifference(f"the test does not measure {name} on the {' and the '.join(ends)} end; it measures "
                               f"{', '.join(others) or 'nothing'}")
        if not moved(found.first, found.last):
            raise NoDifference(f"{name} is the same on both ends within its tolerance: {found.old} and {found.new}")
        return found

    @property
    def old(self) -> str:
        return _values(self.first)

    @property
    def new(self) -> str:
        return _values(self.last)

    def side(self, result: TestResult) -> tuple[str, str]:
        seen = _named(result, self.name, self.tolerance)
        if not seen:
            return SKIP, f"not measured, {result.outcome}: {_first(result.message)}"
        as_old, as_new = not moved(self.first, seen), not moved(self.last, seen)
        if as_old == as_new:
            return SKIP, f"{_values(seen)}, within the tolerance of {'both ends' if as_old else 'neither end'}: see --tolerance"
        return (OLD if as_old else NEW), _values(seen)

    def which(self, side: str) -> str:
        return f"with {self.name} {self.old if side == OLD else self.new}"


@dataclass
class Changing:
    """One kind of change (report.kinds), and the results that differ in it."""

    kind: str
    first: TestResult
    last: TestResult

    @classmethod
    def between(cls, text: str, old: TestResult, new: TestResult) -> "Changing":
        """`text` is the kind or its words, as a verdict prints them. Raises NoDifference."""
        for end, result in (("old", old), ("new", new)):
            if result.outcome != "passed":
                raise NoDifference(f"the test does not pass on the {end} end, {result.outcome}: {_first(result.message)}")
        kinds = _kinds(old, new)
        chosen = [kind for kind in kinds if text in (kind, words(kind))]
        if not chosen:
            raise NoDifference(f"no such change between the ends: {text}; there are: {'; '.join(map(words, kinds)) or 'none'}")
        return cls(chosen[0], old, new)

    @property
    def old(self) -> str:
        return f"does not show: {words(self.kind)}"

    @property
    def new(self) -> str:
        return f"shows: {words(self.kind)}"

    def side(self, result: TestResult) -> tuple[str, str]:
        if result.outcome != "passed":
            return SKIP, f"{result.outcome}: {_first(result.message)}"
        from_first, to_last = self.kind in _kinds(self.first, result), self.kind in _kinds(result, self.last)
        if from_first == to_last:
            return SKIP, f"like {'neither end' if from_first else 'both ends'} in this change"
        return (NEW, self.new) if from_first else (OLD, self.old)

    def which(self, side: str) -> str:
        return f"that {self.old if side == OLD else self.new}"


def ask(measurement: str | None, change: str | None, old: TestResult, new: TestResult, tolerance: float | None = None) -> Question:
    """The question of these options. Raises NoDifference."""
    if measurement:
        return Measuring.between(measurement, old, new, tolerance)
    return Changing.between(change, old, new) if change else Failing.between(old, new)


def _kinds(old: TestResult, new: TestResult) -> list[str]:
    before, after = (KernelResult("", "", clock="virtual", tests=[each]) for each in (old, new))
    return list(dict.fromkeys(move.kind for move in moves(before, after, chance.load())))


def _named(result: TestResult, name: str, tolerance: float | None) -> list[Measurement]:
    found = [one for one in result.measurements if one["name"] == name]
    return found if tolerance is None else [{**one, "tolerance": tolerance} for one in found]


def _values(measurements: list[Measurement]) -> str:
    return ", ".join(f"{one['value']:.6g} {one['unit']}" for one in measurements)


def _shown(result: TestResult) -> str:
    return next(iter(result.signatures), "")


def _word(result: TestResult) -> str:
    return {"passed": "passes", "failed": "fails", "crashed": "crashes"}[result.outcome]


def _first(text: str) -> str:
    return text.partition("\n")[0]
