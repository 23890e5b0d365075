"""Where a change is, among steps in order of which the first is on its old side and the last on its new side.

Steps are numbers from 0 on. As many are tried at a time as there are machines: with two machines, what is left shrinks to a third.
"""
import math
from collections.abc import Mapping
from dataclasses import dataclass

OLD, NEW, SKIP = "old", "new", "skip"       # what is known of a step; SKIP: it was tried, and says nothing


@dataclass(frozen=True)
class Bracket:
    """The change is after `old` and not after `new`. Steps between them were skipped (`skipped`) or not tried yet (`left`);
    `back` are steps after `new` that are on the old side again."""

    old: int
    new: int
    skipped: list[int]
    left: list[int]
    back: list[int]

    @property
    def exact(self) -> bool:
        """Whether it is between two neighbours."""
        return self.new == self.old + 1


def bracket(known: Mapping[int, str]) -> Bracket:
    """What is known of where the change is; the first change if there are several. The first and the last step must be known."""
    judged = sorted(number for number, side in known.items() if side != SKIP)
    new = next(number for number in judged if known[number] == NEW)
    old = max(number for number in judged if number < new)
    between = range(old + 1, new)
    return Bracket(old, new, [number for number in between if number in known], [number for number in between if number not in known],
                   [number for number in judged if number > new and known[number] == OLD])


def probes(left: list[int], machines: int) -> list[int]:
    """The steps to try next, at most as many as there are machines: they cut what is left into parts of nearly one size."""
    if len(left) <= machines:
        return left
    return [left[round((part + 1) * (len(left) + 1) / (machines + 1)) - 1] for part in range(machines)]


def after(known: Mapping[int, str], asked: list[int], machines: int) -> list[int]:
    """The steps that may be tried after those that are asked now, however these end; the likeliest first."""
    left = [number for number in bracket(known).left if number not in asked]
    parts: list[list[int]] = [[] for _ in range(len(asked) + 1)]
    for number in left:
        parts[sum(each < number for each in asked)].append(number)
    return [number for part in sorted(parts, key=len, reverse=True) for number in probes(part, machines)]


def rounds(left: int, machines: int) -> int:
    """How many times machines must run until the change is between two neighbours, if nothing is skipped."""
    return math.ceil(math.log(left + 1, machines + 1) - 1e-9)
