"""Fold each difference under its cause, so that one cause in a test is one line.

- Each cell of a table that differs stands by itself.
- Packets on the wire lead. In a test where some moved, a time follows from them, and so does each counter that moved by no more than
  they did: hosts count each packet where they send, forward and receive it. Octets follow whatever their number.
- Among differences of one rank the kind with the most tests leads, explained kinds first (a greedy set cover). In a test where a
  leading kind has moved as far already, other kinds follow it.
"""
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set

from report.kinds import CELL, COUNTER, FORM, LOG, PACKET, TIME, Move


def fold(found: Sequence[Move], explained: Set[str]) -> tuple[dict[str, set[str]], dict[str, Counter[str]]]:
    """The tests of each leading kind, and the kinds that follow it with the number of tests in which they do.
    A kind in `explained` is never folded under another of its rank."""
    leaders: dict[str, set[str]] = {}
    follows: dict[str, Counter[str]] = defaultdict(Counter)
    leading: dict[str, str] = {}            # by test
    wire: dict[str, float] = defaultdict(float)
    for move in found:
        if move.rank in (PACKET, FORM):
            wire[move.test] += move.by
    for ranks in ((CELL,), (PACKET, FORM), (TIME,), (COUNTER,), (LOG,)):
        mine = [move for move in found if move.rank in ranks]
        free = [move for move in mine if not _follows(move, wire)]
        chosen = _by_kind(free) if ranks in ((CELL,), (LOG,)) else _cover(free, explained)
        leaders |= {kind: set(tests) for kind, tests in chosen.items()}
        for kind, tests in chosen.items():
            for test in tests:
                leading.setdefault(test, kind)
        for move in mine:
            if move.test not in leaders.get(move.kind, ()):
                follows[leading[move.test]][move.kind] += 1
    return leaders, follows


def _follows(move: Move, wire: Mapping[str, float]) -> bool:
    if not wire.get(move.test):
        return False
    return move.rank == TIME or move.rank == COUNTER and (move.by <= wire[move.test] or move.topic.endswith("Octets"))


def _by_kind(found: Sequence[Move]) -> dict[str, dict[str, float]]:
    """How far each kind moved in each of its tests; of several hosts, the largest movement."""
    kinds: dict[str, dict[str, float]] = defaultdict(dict)
    for move in found:
        kinds[move.kind][move.test] = max(move.by, kinds[move.kind].get(move.test, 0))
    return kinds


def _cover(found: Sequence[Move], explained: Set[str]) -> dict[str, dict[str, float]]:
    kinds = _by_kind(found)
    chosen: dict[str, dict[str, float]] = {}
    reach: dict[str, float] = {}            # by test, how far the leading kinds moved
    while kinds:
        def rest(kind: str, reach: Mapping[str, float] = reach) -> int:
            octets = kind.endswith("Octets")
            return sum(test not in reach or by > reach[test] and not octets for test, by in kinds[kind].items())
        best = max(kinds, key=lambda kind: (kind in explained, rest(kind), sum(kinds[kind].values()), kind))
        if not rest(best) and best not in explained:
            break
        mine = kinds.pop(best)
        octets = best.endswith("Octets")
        chosen[best] = mine if best in explained else {test: by for test, by in mine.items()
                                                       if test not in reach or by > reach[test] and not octets}
        for test, by in mine.items():
            reach[test] = max(by, reach.get(test, 0))
    return chosen
