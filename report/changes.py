"""What changed between two kernels: the differences of all tests' traffic, grouped into kinds, each change once.

Behaviour: a table's cell, a packet, a time or a count differs. Vocabulary: only one of the kernels has a counter or a log line.
"""
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from report import traffic
from report.expected import Explanation
from report.folding import fold
from report.kinds import CELL, COUNTER, FORM, LOG, PACKET, SHORTEST, TIME, Move, column_of, fields, noun, topic, words
from report.results import KernelResult, TestResult
from report.traffic import SECONDS, differences

GOOD = ("passed", "fixed")
BAD = ("failed", "known")
FEW = 4                                     # rows of a table that a change names
_DIRECTIONS = {PACKET: ("fewer", "more"), LOG: ("fewer", "more"), TIME: ("earlier", "later"), COUNTER: ("lower", "higher")}
SIMILAR = 0.8                               # similarity, 1 being equal, above which two log lines are one line reworded
# printk_ratelimit() decides how often these appear, 10 in 5 seconds for the whole machine: kauditd_printk_skb(), audit_log_lost().
LIMITED = "log audit: "
# What modules say when they are loaded or unloaded, in whichever test of a machine is the first to need them, or the last.  And an
# interface's line that appears only if linkwatch, which waits up to a second (linkwatch_urgent_event()), has run before the link is up.
_LOADED = re.compile(r"log (\w+: .* (tunneling|demultiplex[eo]r) driver|netem: version #.*|tun: Universal TUN/TAP device driver.*|"
                     r"cryptd: max_cpu_qlen .*|IPVS: (Connection hash table|Registered protocols|ipvs loaded).*|"
                     r"IPv6: ADDRCONF\(NETDEV_CHANGE\): IFACE: link becomes ready)")
# The same where it may be in no recorded test: a test that was skipped has loaded the module.
_UNSEEN = re.compile(r"log (Initializing XFRM netlink socket|IPVS: ipvs unloaded\.|IPVS: \[\w+\] scheduler (un)?registered\.)")


@dataclass
class Kind:
    """One change.  `example` is a test and its difference in words; `follows` counts the tests of each kind folded under this one.
    A table's cell differs in these `rows`, of `all_rows` in which both kernels have it; `row` is what a row is."""

    key: str
    rank: int
    tests: list[str]
    example: tuple[str, str]
    vocabulary: bool = False
    follows: Counter[str] = field(default_factory=Counter)
    expected: Explanation | None = None     # what explains it
    row: str = ""
    rows: list[str] = field(default_factory=list)
    all_rows: int = 0
    explored: int = 0                       # instead of tests, the number of made-up scenarios that show it

    @property
    def text(self) -> str:
        if self.explored:
            return f"explored: {words(self.key)} ({self.explored} scenario{'s' * (self.explored > 1)})"
        return f"{words(self.key)} ({plural(len(self.tests))}{self._where()})"

    def _where(self) -> str:
        if not self.rows or len(self.rows) == self.all_rows > 1:
            return ""
        if len(self.rows) <= FEW:
            return f"; {self.row} {', '.join(self.rows)}"
        return f"; {len(self.rows)} of {self.all_rows} rows"


def changes(old: KernelResult, new: KernelResult, chance: Mapping[str, Set[str]] | None = None,
            expected: Callable[[str, Sequence[str]], Explanation | None] = lambda kind, tests: None) -> list[Kind]:
    """The kinds of change from `old` to `new`, the most significant first, vocabulary last.

    `chance` has, by test function, the topics that vary by themselves; `expected(kind, tests)` is the entry that explains a kind, or None.
    """
    found = moves(old, new, chance or {})
    tests: dict[str, list[str]] = defaultdict(list)
    for move in found:
        if move.test not in tests[move.kind]:
            tests[move.kind].append(move.test)
    entries = {kind: entry for kind, where in tests.items() if (entry := expected(kind, where))}
    leaders, follows = fold([move for move in found if not move.vocabulary], entries.keys())
    kinds: dict[str, Kind] = {}
    for move in found:
        if move.vocabulary or move.test in leaders.get(move.kind, ()):
            kind = kinds.setdefault(move.kind, Kind(move.kind, move.rank, [], (move.test, move.text), move.vocabulary,
                                                    follows.get(move.kind, Counter()), entries.get(move.kind)))
            if move.test not in kind.tests:
                kind.tests.append(move.test)
    _name_rows(kinds.values(), old, new)
    return sorted(kinds.values(), key=lambda kind: (kind.vocabulary, kind.rank, -len(kind.tests), kind.key))


def _name_rows(kinds: Iterable[Kind], old: KernelResult, new: KernelResult) -> None:
    """Say in which rows of its table each cell differs."""
    compared = {test.id for test in old.tests}
    cells = {test.id: test.cells[0] for test in new.tests if test.cells and test.id in compared}
    having: dict[tuple[str, str], set[str]] = defaultdict(set)
    for test in new.tests:
        for cell in test.cells if test.id in compared else ():
            having[cell["table"], cell["column"]].add(cell["row"])
    for kind in kinds:
        mine = [cells[test] for test in kind.tests if test in cells] if kind.rank == CELL else []
        if mine:
            kind.row, kind.rows = mine[0]["rows"], list(dict.fromkeys(cell["row"] for cell in mine))
            kind.all_rows = len(having[mine[0]["table"], column_of(kind.key) or ""])


def moves(old: KernelResult, new: KernelResult, chance: Mapping[str, Set[str]]) -> list[Move]:
    """All differences in tests that passed on both kernels, except random ones; and cells in rows that failed."""
    before = {test.id: test.traffic for test in old.tests if test.outcome in GOOD and test.traffic}
    pairs = [(test.id, before[test.id], test.traffic) for test in new.tests if test.outcome in GOOD and test.traffic and test.id in before]
    pairs += _beside_failures(old, new)
    known = [_vocabulary(kernel) for kernel in (old, new)]
    found = []
    for test, was, now in pairs:
        random = chance.get(test.partition("[")[0], frozenset())
        found += _without_random(_moves(test, was, now, known), random)
    landed = _once_per_boot(found, pairs)
    return _renamed([move for move in found if move.rank != LOG or move.topic not in landed])


def _beside_failures(old: KernelResult, new: KernelResult) -> list[tuple[str, dict[str, float], dict[str, float]]]:
    """Of rows that failed on a kernel the cells that were as they must be on both, as traffic: one bad cell does not hide the others."""
    if not old.clock == new.clock == "virtual":
        return []                           # no traffic is recorded either
    earlier = {test.id: test for test in old.tests if test.outcome in (*GOOD, *BAD) and test.cells}
    pairs = [(earlier[test.id], test) for test in new.tests if test.outcome in (*GOOD, *BAD) and test.id in earlier]
    return [(now.id, _right_cells(was), _right_cells(now)) for was, now in pairs if {was.outcome, now.outcome} & set(BAD)]


def _right_cells(test: TestResult) -> dict[str, float]:
    return traffic.numbers(cells=[cell for cell in test.cells if not cell["expected"] or cell["seen"] in cell["expected"]])


def _without_random(found: Sequence[Move], random: Set[str]) -> list[Move]:
    """Without what is random in this test, and the counters that moved with random packets: hosts count each packet."""
    wire = sum(move.by for move in found if move.rank in (PACKET, FORM) and move.topic in random)
    return [move for move in found if move.topic not in random
            and not (wire and move.rank == COUNTER and (move.by <= wire or move.topic.endswith("Octets")))]


def _once_per_boot(found: Sequence[Move], pairs: Sequence[tuple[str, Mapping[str, float], Mapping[str, float]]]) -> set[str]:
    """Lines that both kernels log once per boot or module load, in whichever test comes first: fewer tests gained or lost one
    than still have it. Also lines under a rate limit: how many appear is random."""
    has: Counter[str] = Counter()
    for _test, was, now in pairs:
        has.update({topic(name)[1] for name in {*was, *now} if name.startswith("the kernel logs: ")})
    moved: dict[str, list[Move]] = defaultdict(list)
    for move in found:
        if move.rank == LOG:
            moved[move.topic].append(move)
    return {what for what, moves in moved.items() if _lands(what, moves, has[what])}


def _lands(what: str, moves: Sequence[Move], tests: int) -> bool:
    """Whether a line lands in any test; `tests` have it on either kernel."""
    if what.endswith("callbacks suppressed") or _UNSEEN.fullmatch(what):
        return True
    if any(move.vocabulary for move in moves):
        return False
    if what.startswith(LIMITED) or _LOADED.fullmatch(what):
        return True
    once = {move.text.count(": 0 -> ") + move.text.endswith("-> 0") for move in moves} == {1} and all(move.by == 1 for move in moves)
    return once and len(moves) <= max(2, tests / 2)


def _renamed(found: list[Move]) -> list[Move]:
    """A line that is gone and a similar one that is new in the same tests are one change."""
    where: dict[str, set[str]] = defaultdict(set)
    for move in found:
        if move.rank == LOG and move.vocabulary:
            where[move.kind].add(move.test)
    pairs: dict[str, str] = {}
    for gone in (kind for kind in where if kind.startswith("gone: ")):
        similar = [kind for kind in where if kind.startswith("new: ") and where[kind] == where[gone] and kind not in pairs.values()
                   and SequenceMatcher(None, gone.partition(": ")[2], kind.partition(": ")[2]).ratio() > SIMILAR]
        if similar:
            pairs[gone] = similar[0]
    other = {kind.partition(": ")[2]: gone.partition(": ")[2].removeprefix("log ") for gone, kind in pairs.items()}
    return [move._replace(direction="reworded", topic=f"{move.topic}, was {other[move.topic]}") if move.kind in pairs.values() else move
            for move in found if move.kind not in pairs]


def _vocabulary(kernel: KernelResult) -> set[str]:
    """The counters that a kernel has and the lines that it logs, as topics."""
    names = {name for test in kernel.tests for name in _without_cells(test.traffic)
             if " counts " in name or name.startswith("the kernel logs: ")}
    return {topic(name)[1] for name in names} | {f"counter {name}" for name in kernel.counters}


def _moves(test: str, was: Mapping[str, float], now: Mapping[str, float], known: Sequence[Set[str]]) -> list[Move]:
    found = _cells(test, was, now)
    was, now = _without_cells(was), _without_cells(now)
    moved = differences(was, now)
    forms = _forms(test, was, now, moved)
    found += [move for move, _names in forms]
    done = {name for _move, names in forms for name in names}
    for name, text in moved.items():
        rank, what = topic(name)
        by = now.get(name, 0) - was.get(name, 0)
        if name.removesuffix(SECONDS) in done or rank == TIME and (abs(by) < SHORTEST or name not in was or name not in now):
            continue
        if rank in (COUNTER, LOG) and what not in known[by < 0]:
            direction = "new" if by > 0 else "gone"
        else:
            direction = _DIRECTIONS[rank][by > 0]
        found.append(Move(test, rank, what, direction, abs(by), text))
    return found


def _cells(test: str, was: Mapping[str, float], now: Mapping[str, float]) -> list[Move]:
    """The cells of a table's row that showed something else."""
    old, new = _by_place(was), _by_place(now)
    moved = [f"{place}: {seen} -> {new[place]}" for place, seen in old.items() if new.get(place, seen) != seen]
    return [Move(test, CELL, text, "cell", 1, text) for text in moved]


def _by_place(side: Mapping[str, float]) -> dict[str, str]:
    """By table and column, what the cell showed."""
    cells = (name.removeprefix(traffic.CELL).partition(": ") for name in side if name.startswith(traffic.CELL))
    return {place: seen for place, _, seen in cells}


def _without_cells(side: Mapping[str, float]) -> dict[str, float]:
    return {name: number for name, number in side.items() if not name.startswith(traffic.CELL)}


def _forms(test: str, was: Mapping[str, float], now: Mapping[str, float], moved: Mapping[str, str]) -> list[tuple[Move, tuple[str, str]]]:
    """Packets sent as often as before, but with other numbers in their headers."""
    gone: dict[tuple[str, float], list[str]] = defaultdict(list)
    found = []
    sent = [name for name in moved if " sends " in name and not name.endswith(SECONDS)]
    for name in sent:
        if name not in now:
            gone[fields(name)[0], was[name]].append(name)
    for name in sent:
        if name not in was and (others := gone.get((fields(name)[0], now[name]))):
            other = others.pop()
            what = f"{noun(name.split(' ', 2)[2])}, {_changed(other, name)}"
            found.append((Move(test, FORM, what, "other form", now[name], f"{other} -> {name.split(' ', 2)[2]}"), (other, name)))
    return found


def _changed(one: str, other: str) -> str:
    """The words before the numbers that differ: `ttl`, `seq and window`."""
    pairs = zip(one.split(), other.split(), strict=False)
    places = [index for index, (this, that) in enumerate(pairs) if this != that]
    named = [one.split()[place - 1].strip(",") for place in places]
    return " and ".join(dict.fromkeys(word for word in named if word.isalpha())) or "sizes"


def change_lines(kinds: Sequence[Kind]) -> list[tuple[str, str]]:
    """For a terminal: the number of changes, and each change of behaviour with its explanation."""
    lines = [("changed", counted(kinds))] if kinds else []
    for kind in kinds:
        if not kind.vocabulary:
            lines.append(("explained" if kind.expected else "unexplained", f"{kind.text}: {kind.expected or kind.example[0]}"))
    return lines


def plural(tests: int) -> str:
    return f"{tests} test{'s' * (tests != 1)}"


def counted(kinds: Sequence[Kind]) -> str:
    """The number of changes, in words."""
    behaviour = [kind for kind in kinds if not kind.vocabulary]
    explained = sum(bool(kind.expected) for kind in behaviour)
    vocabulary = len(kinds) - len(behaviour)
    return (f"{len(behaviour)} behaviour change{'s' * (len(behaviour) != 1)}: {explained} explained, {len(behaviour) - explained} not; "
            f"{vocabulary} vocabulary change{'s' * (vocabulary != 1)}: {sum(bool(kind.expected) for kind in kinds) - explained} explained")
