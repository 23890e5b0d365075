"""A bisection over kernels that are there: the ends, then what is between them, then the last two under several seeds."""
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bisection.machines import Unusable
from bisection.question import Question
from bisection.search import NEW, OLD, SKIP, Bracket, after, bracket, probes, rounds
from bisection.state import State, Tried
from common.threads import side_by_side
from kernels.versions import Available, several_series
from report.results import TestResult


class EndUnusable(Exception):
    """One of the ends cannot be tried; one line says why."""


class Runner(Protocol):
    """bisection.machines.Machines, or a stand-in."""

    def attempt(self, spec: str, seed: int) -> TestResult:
        """Run the test. Raises Unusable."""

    def ahead(self, specs: list[str]) -> None:
        """Fetch these meanwhile."""

    def keep(self, specs: Collection[str]) -> None:
        """Other kernels are not needed anymore."""

    def end(self) -> None:
        """End what runs."""


@dataclass
class Found:
    """Where the change is among the steps.  `seeds` has by version how many seeds gave its side, of how many."""

    steps: Sequence[Available]
    question: Question
    at: Bracket
    said: dict[int, str]                    # what each step that was tried shows, or why it was skipped
    seeds: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def certain(self) -> bool:
        """It is between two neighbours, and every seed gave the same."""
        return self.at.exact and all(same == tried for same, tried in self.seeds.values())

    def lines(self) -> Iterator[str]:
        """The result, for people."""
        old, new = self.steps[self.at.old].version, self.steps[self.at.new].version
        yield f"last kernel {self.question.which(OLD)}: {old}{self._share(old)}"
        yield f"first kernel {self.question.which(NEW)}{'' if self.at.exact else ' that was judged'}: {new}{self._share(new)}"
        if self.at.skipped:
            yield "the first one may also be one of these, which say nothing:"
            yield from (f"  {self.steps[number].version}: {self.said[number]}" for number in self.at.skipped)
        if self.at.back:
            yield (f"it changes more than once: {', '.join(self.steps[number].version for number in self.at.back)} "
                   f"{'is' if len(self.at.back) == 1 else 'are'} again like {old}")
        if series := several_series([old, new]):
            yield f"{' and '.join(series)} are no line of history: a stable update may have the change too"

    def _share(self, version: str) -> str:
        same, tried = self.seeds.get(version, (0, 0))
        return f" (under {same} of {_count(tried, 'seed')})" if tried else ""


class Bisection:
    """`ask` makes the question from the results of the ends; `machines` run at a time."""

    def __init__(self, steps: Sequence[Available], runner: Runner, state: State, ask: Callable[[TestResult, TestResult], Question],
                 machines: int, seeds: int, say: Callable[[str], None]) -> None:
        self.steps, self.runner, self.state, self.ask = steps, runner, state, ask
        self.machines, self.seeds, self.say = machines, seeds, say
        self.known: dict[int, str] = {}
        self.said: dict[int, str] = {}

    def run(self) -> Found:
        """Search. Raises EndUnusable, NoDifference, NoSpaceError, OSError, KeyboardInterrupt; what was found is in the state."""
        try:
            self.question = self._ends()
            while (at := bracket(self.known)).left:
                wanted = probes(at.left, self.machines)
                self._progress(at)
                self.runner.keep({self.steps[number].spec for number in (at.old, at.new)})
                self.runner.ahead([self.steps[number].spec for number in (*wanted, *after(self.known, wanted, self.machines))])
                self._try(wanted, self._judge)
            self.runner.ahead([])
            return Found(self.steps, self.question, at, self.said, self._seeds(at))
        except BaseException:
            self.runner.end()
            raise

    def _ends(self) -> Question:
        ends = [0, len(self.steps) - 1]
        self.runner.ahead([self.steps[number].spec for number in (*ends, *probes(list(range(1, ends[1])), self.machines))])
        self.say("trying both ends")
        self._try(ends, lambda number: self.say(f"{self.steps[number].version}: tried ({self._tried_s(number):.0f} s)"))
        tried = [self.state.steps[self.steps[number].version] for number in ends]
        for number, each in zip(ends, tried, strict=True):
            if each.trouble:
                raise EndUnusable(f"{self.steps[number].version}: {each.trouble}")
        old, new = (each.result for each in tried)
        assert old and new
        question = self.ask(old, new)
        self.known |= {ends[0]: OLD, ends[1]: NEW}
        self.said |= {ends[0]: question.old, ends[1]: question.new}
        for number in ends:
            self.say(f"{self.steps[number].version}: {self.said[number]}")
        return question

    def _try(self, numbers: Sequence[int], done: Callable[[int], None]) -> None:
        """Try the steps of which nothing is known yet, side by side."""
        open_ = [number for number in numbers if self.steps[number].version not in self.state.steps]
        for number in numbers:
            if number not in open_:
                done(number)
        for number, tried in side_by_side(lambda number: self._tried(self.steps[number].spec), open_, self.machines, self.runner.end):
            self.state.steps[self.steps[number].version] = tried
            self.state.save()
            done(number)

    def _tried(self, spec: str) -> Tried:
        began = time.monotonic()
        try:
            result, trouble = self.runner.attempt(spec, 1), ""
        except Unusable as why:
            result, trouble = None, str(why)
        return Tried(result, trouble, round(time.monotonic() - began, 1))

    def _tried_s(self, number: int) -> float:
        return self.state.steps[self.steps[number].version].took_s

    def _judge(self, number: int) -> None:
        tried = self.state.steps[self.steps[number].version]
        side, words = self.question.side(tried.result) if tried.result else (SKIP, tried.trouble)
        self.known[number], self.said[number] = side, words
        self.say(f"{self.steps[number].version}: {'skipped: ' * (side == SKIP)}{words} ({self._tried_s(number):.0f} s)")

    def _progress(self, at: Bracket) -> None:
        took = [tried.took_s for tried in self.state.steps.values()]
        left = rounds(len(at.left), self.machines)
        names = self.steps[at.old].version, self.steps[at.new].version
        self.say(f"{_count(len(at.left), 'kernel')} left between {names[0]} and {names[1]}: about {_count(left, 'more step')}, "
                 f"{math.ceil(left * sum(took) / len(took))} s")

    def _seeds(self, at: Bracket) -> dict[str, tuple[int, int]]:
        """Try the last two under the other seeds; how many gave their side, by version."""
        pairs = {self.steps[number].version: (number, side) for number, side in ((at.old, OLD), (at.new, NEW))}
        todo = [(version, seed) for version in pairs for seed in range(len(self.state.confirmed.get(version, [])) + 1, self.seeds + 1)]
        if todo:
            self.say(f"trying the last two under {_count(self.seeds, 'seed')} (--confirm 1 disables this)")
        answers = dict(side_by_side(lambda key: self._side(self.steps[pairs[key[0]][0]].spec, key[1]), todo, self.machines,
                                    self.runner.end))
        for version, seed in todo:
            self.state.confirmed.setdefault(version, []).append(answers[version, seed])
        self.state.save()
        return {version: (self.state.confirmed.get(version, [])[:self.seeds].count(side), self.seeds)
                for version, (_number, side) in pairs.items()}

    def _side(self, spec: str, seed: int) -> str:
        try:
            return self.question.side(self.runner.attempt(spec, seed))[0]
        except Unusable:
            return SKIP


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
