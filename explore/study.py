"""Batches of scenarios on two kernels: what differs, is confirmed, shrunk and kept.

Each scenario runs with one seed on the old kernel, and with another on the new one. Where something differs it runs with a third on the old
one: what differs there too is chance. A kind of difference that is not known yet is confirmed under CONFIRMING seeds on both kernels, where
it must come each time.
"""
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from common.threads import side_by_side
from explore.bench import Observed, ScenarioBench
from explore.draft import NoFigures, write_case
from explore.findings import BatchDone, Finding, Findings
from explore.generator import scenario as generated
from explore.language import Scenario
from explore.observation import Pair, Seen, differing, kinds_of, only, seen, steady
from explore.shrink import shrink
from explore.story import story
from netns.scenario.figures import ENDED, Figures, figures, unlike
from report.changes import Kind
from report.kinds import topic, words
from report.results import KernelResult

T = TypeVar("T")
R = TypeVar("R")
OLD_SEEDS, NEW_SEED = (1, 2), 3
CONFIRMING = (11, 12, 13)
_MOST_TRIES = 3                             # scenarios in which a kind may fail to come again before it counts as unsteady


@dataclass
class Side:
    """One kernel: its machine, and what the verdict's code must know of it."""

    bench: ScenarioBench
    result: KernelResult


class Exploration:
    """`say` gets a line of progress for each batch and each finding; `slots` machines run at a time."""

    def __init__(self, old: Side, new: Side, findings: Findings, seed: int, slots: int, say: Callable[[str], None],
                 batch: int) -> None:
        self.old, self.new, self.findings, self.seed, self.slots, self.say, self.batch = old, new, findings, seed, slots, say, batch
        self._failed: Counter[str] = Counter()
        self._until = 0.0                   # the end of time.monotonic() for run()

    def run(self, minutes: float, most: int | None = None) -> None:
        """Run batches until `minutes` have passed, or `most` scenarios have been judged in all. Raises Gone, VMError, OSError."""
        self._until = until = time.monotonic() + 60 * minutes
        while time.monotonic() < until and (most is None or sum(each.scenarios for each in self.findings.batches.values()) < most):
            number = self.findings.next_batch
            first = number * self.batch
            self._judge(number, [f"{self.seed}-{index}" for index in range(first, first + self.batch)])
            for finding in list(self.findings.found.values()):
                if not (finding.explained or finding.vocabulary or finding.shrunk) and time.monotonic() < until:
                    self._shrink(finding)

    def judge_one(self, scenario: Scenario) -> tuple[list[Kind], list[str]]:
        """The kinds of difference that this scenario shows under every seed, and its story. Raises Gone, VMError."""
        [pair] = self.confirmed(["given"], [scenario])
        kinds = self.kinds([pair]) if pair else []
        return kinds, self._story(scenario, pair or Pair("given", Seen(), Seen()))

    def _judge(self, number: int, names: Sequence[str]) -> None:
        began, computed = time.monotonic(), self._computed()
        scenarios = [generated(name) for name in names]
        pairs = self.pairs(names, scenarios)
        wall, cpu = time.monotonic() - began, self._computed() - computed
        shown = {pair.name: self.kinds([pair]) for pair in pairs}
        unsteady: Counter[str] = Counter()
        while chosen := self._unknown(shown):
            unsteady.update(self._confirm(chosen))
        kinds: Counter[str] = Counter(kind.key for found in shown.values() for kind in found if kind.key in self.findings.found)
        differ = sum(any(kind.key in self.findings.found for kind in found) for found in shown.values())
        self.findings.end_batch(BatchDone(number, len(names), differ, dict(kinds), dict(unsteady), round(wall, 3), round(cpu, 3)))
        self.say(self.progress())

    def pairs(self, names: Sequence[str], scenarios: Sequence[Scenario]) -> list[Pair]:
        """What differs between the kernels, without what differs between two seeds on the old one, which is asked only where it matters."""
        was, now = self._observe([(self.old, OLD_SEEDS[0]), (self.new, NEW_SEED)], scenarios)
        differ = {number: keys for number, (one, two) in enumerate(zip(was, now, strict=True)) if (keys := differing(one, two))}
        [other] = self._observe([(self.old, OLD_SEEDS[1])], [scenarios[number] for number in differ]) if differ else [[]]
        return [Pair(names[number], only(was[number], keys), only(now[number], keys))
                for (number, found), again in zip(differ.items(), other, strict=True)
                if (keys := found - differing(was[number], again))]

    def _unknown(self, shown: dict[str, list[Kind]]) -> dict[str, Kind]:
        """For each kind that is neither known nor unsteady the shortest scenario that shows it and has not failed yet, by name."""
        by_kind: dict[str, tuple[int, str, Kind]] = {}
        for name, kinds in shown.items():
            length = len(generated(name)["steps"])
            for kind in list(kinds):
                if kind.key in self.findings.found or self._failed[kind.key] >= _MOST_TRIES:
                    continue
                if kind.key not in by_kind or length < by_kind[kind.key][0]:
                    by_kind[kind.key] = (length, name, kind)
        return {f"{name} {key}": kind for key, (_length, name, kind) in by_kind.items()}

    def _confirm(self, chosen: dict[str, Kind]) -> Counter[str]:
        """Run the scenarios again, and add the kinds that come each time; the others, which are counted, do not come again."""
        names = list(dict.fromkeys(each.partition(" ")[0] for each in chosen))
        scenarios = [generated(name) for name in names]
        pairs = {name: pair for name, pair in zip(names, self.confirmed(names, scenarios), strict=True) if pair}
        found = {name: {kind.key: kind for kind in self.kinds([pair])} for name, pair in pairs.items()}
        lost: Counter[str] = Counter()
        for each, kind in chosen.items():
            name, _, key = each.partition(" ")
            if key in found.get(name, {}):
                self._add(kind, name, pairs[name])
            else:
                self._failed[key] += 1
                lost[key] += 1
        # Other kinds of the same scenarios that only the confirmation shows are as certain.
        for name, kinds in found.items():
            for key, kind in kinds.items():
                if key not in self.findings.found:
                    self._add(kind, name, pairs[name])
        return lost

    def _add(self, kind: Kind, name: str, pair: Pair) -> None:
        finding = Finding(kind.key, words(kind.key), generated(name), name, list(CONFIRMING), str(kind.expected or ""), kind.vocabulary,
                          rank=kind.rank, between=[side.result.version or side.result.release for side in (self.old, self.new)])
        finding.story = self._story(finding.scenario, pair)
        self.findings.add(finding)
        if not finding.vocabulary:
            self.say(f"    {'explained' if finding.explained else 'unexplained'}  {finding.id}  {finding.text}")

    def confirmed(self, names: Sequence[str], scenarios: Sequence[Scenario]) -> list[Pair | None]:
        """Of each scenario what differs under every seed, and varies on neither kernel; None where nothing does."""
        runs = self._observe([(side, seed) for side in (self.old, self.new) for seed in CONFIRMING], scenarios)
        found: list[Pair | None] = []
        for name, *seeds in zip(names, *runs, strict=True):
            old, new = seeds[:len(CONFIRMING)], seeds[len(CONFIRMING):]
            keys = steady(old, new)
            found.append(Pair(name, only(old[0], keys), only(new[0], keys)) if keys else None)
        return found

    def _shrink(self, finding: Finding) -> None:
        """Replace the finding's scenario by the smallest that shows the kind alone in its machine, each time, or by the smallest that was
        found when the time is over."""
        began = time.monotonic()

        def holds(candidates: Sequence[Scenario]) -> Sequence[bool]:
            return self.shows(finding, candidates) if time.monotonic() < self._until else [False] * len(candidates)

        small = shrink(finding.scenario, holds)
        [pair] = self.confirmed([finding.found_in], [small])
        if pair is None or finding.kind not in {kind.key for kind in self.kinds([pair])}:
            self.findings.add(replace(finding, shrunk=True))        # only the whole scenario is certain
            return
        self.findings.add(self.leave_case(replace(finding, scenario=small, shrunk=True, story=self._story(small, pair))))
        self.say(f"    smallest   {finding.id}  {len(finding.scenario['steps'])} steps -> {len(small['steps'])}, "
                 f"{time.monotonic() - began:.0f} s")

    def shows(self, finding: Finding, candidates: Sequence[Scenario]) -> list[bool]:
        was, now = self._observe([(self.old, OLD_SEEDS[0]), (self.new, NEW_SEED)], candidates)
        return [finding.kind in self._keys(Pair("shrunk", one, two)) for one, two in zip(was, now, strict=True)]

    def leave_case(self, finding: Finding) -> Finding:
        """The finding with its figures; repro.pyz checks them. Raises OSError."""
        old, new = self._figures(finding.scenario)
        finding = replace(finding, old=old, new=new)
        try:
            write_case(self.findings.directory / f"repro-{finding.id}.pyz", finding)
        except NoFigures as error:
            self.say(f"    {error}")
        return finding

    def _figures(self, scenario: Scenario) -> tuple[Figures, Figures]:
        """What differs under every seed, and varies on neither kernel: by name, as the old kernel shows it and as the new one does."""
        was, now = ([figures(side.bench.observe([scenario], seed)[0]) for seed in CONFIRMING] for side in (self.old, self.new))
        ended = [ENDED] if any(ENDED in each[0] for each in (was, now)) else []
        names = {name: None for name in ended or [*was[0], *now[0]]
                 if not any(unlike({name: one[0].get(name)}, other) for one in (was, now) for other in one[1:])
                 and unlike({name: was[0].get(name)}, now[0])}
        return {name: was[0].get(name) for name in names}, {name: now[0].get(name) for name in names}

    def _story(self, scenario: Scenario, pair: Pair) -> list[str]:
        """Without the counters and log lines that only one of the kernels has."""
        unknown = {kind.key.partition(": ")[2] for kind in self.kinds([pair]) if kind.vocabulary}
        keys = {*pair.old.texts, *pair.new.texts}
        keys |= {name for name in {*pair.old.numbers, *pair.new.numbers} if topic(name)[1] not in unknown}
        return story(scenario, Pair(pair.name, only(pair.old, keys), only(pair.new, keys)))

    def _keys(self, pair: Pair) -> set[str]:
        keys = differing(pair.old, pair.new)
        return {kind.key for kind in self.kinds([Pair(pair.name, only(pair.old, keys), only(pair.new, keys))])} if keys else set()

    def kinds(self, pairs: Iterable[Pair]) -> list[Kind]:
        return kinds_of(pairs, self.old.result, self.new.result)

    def _observe(self, runs: Sequence[tuple[Side, int]], scenarios: Sequence[Scenario]) -> list[list[Seen]]:
        """What each run of the scenarios on a side under a seed shows."""
        def one(run: tuple[Side, int]) -> list[Seen]:
            side, seed = run
            observed: list[Observed] = side.bench.observe(scenarios, seed)
            return [seen(each, found) for each, found in zip(scenarios, observed, strict=True)]

        return self.each(one, runs)

    def each(self, act: Callable[[T], R], given: Sequence[T]) -> list[R]:
        """What comes of each, in order; as many at a time as there are slots. If one fails, all machines are ended."""
        found = dict(side_by_side(lambda number: act(given[number]), range(len(given)), self.slots, self.end))
        return [found[number] for number in range(len(given))]

    def _computed(self) -> float:
        return self.old.bench.computed_s + (self.new.bench.computed_s if self.new.bench is not self.old.bench else 0)

    def end(self) -> None:
        """Kill all machines."""
        for side in (self.old, self.new):
            side.bench.end()

    def progress(self) -> str:
        done = list(self.findings.batches.values())
        scenarios, cpu = sum(each.scenarios for each in done), sum(each.cpu_s for each in done)
        behaviour = [each for each in self.findings.found.values() if not each.vocabulary]
        explained = sum(bool(each.explained) for each in behaviour)
        rate = f", {scenarios / cpu:.1f} a second of processor time" if cpu else ""
        return (f"{scenarios} scenarios{rate}: {sum(each.differing for each in done)} differ, "
                f"{len(behaviour)} kinds: {explained} explained, {len(behaviour) - explained} not")
