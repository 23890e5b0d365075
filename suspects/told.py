"""Suspects in words."""
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from suspects.compare import CHANGED, GONE, MOVED, NEW, SCOPE, Difference, FunctionName

MOST = 10                                   # suspects of a test, on a terminal
PASSED = ("passed", "fixed")


def scope(paths: Sequence[str] = SCOPE) -> str:
    """`net/ and kernel/audit*`."""
    return " and ".join(path if path.endswith("/") else f"{path}*" for path in paths)


def number_of(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def difference_line(found: Difference, paths: Sequence[str] = SCOPE) -> str:
    """How many functions differ, and how."""
    counts = {how: len(found.of(how)) for how in (CHANGED, NEW, GONE, MOVED)}
    return (f"{number_of(len(found.places), 'function')} in {scope(paths)}: {counts[CHANGED]} changed, {counts[NEW]} new, "
            f"{counts[GONE]} gone; in {counts[MOVED]} more only fields of structures moved")


@dataclass(frozen=True)
class Executed:
    """Of the functions that changed or are new, by how many passing tests each is executed; those by none are there too."""

    tests: Mapping[FunctionName, int]

    @classmethod
    def by(cls, found: Difference, passing: Iterable[Collection[FunctionName]]) -> "Executed":
        counts = dict.fromkeys(found.of(CHANGED, NEW), 0)
        for functions in passing:
            for name in counts.keys() & set(functions):
                counts[name] += 1
        return cls(counts)

    def line(self) -> str:
        executed = sum(count > 0 for count in self.tests.values())
        return (f"of {number_of(len(self.tests), 'function')} changed in {scope()}, {executed} were executed by passing tests, "
                f"{len(self.tests) - executed} by none")

    def by_none(self) -> list[FunctionName]:
        return [name for name, count in self.tests.items() if not count]

    def suspects(self, functions: Collection[FunctionName]) -> list[tuple[FunctionName, int]]:
        """Of these functions those that changed, with the number of passing tests that execute each: the fewest first."""
        return sorted(((name, self.tests[name]) for name in self.tests.keys() & set(functions)), key=lambda each: (each[1], each[0]))


def suspect_lines(suspects: Sequence[tuple[FunctionName, int]], places: Mapping[FunctionName, str],
                  notes: Mapping[FunctionName, str] | None = None, most: int = MOST) -> list[str]:
    """A line for each suspect, at most so many, and how many more there are."""
    lines = []
    for name, count in suspects[:most]:
        note = f"; {notes[name]}" if notes and name in notes else ""
        lines.append(f"{name}, {places[name] or 'file not known'}: executed by {number_of(count, 'passing test')}{note}")
    return lines + [f"and {len(suspects) - most} more"] * (len(suspects) > most)
