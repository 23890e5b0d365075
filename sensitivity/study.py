"""Which mutants are tried, against which tests, and what counts as a kill."""
import argparse
import hashlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from common.errors import SpecError
from common.project import PROJECT
from kernels.extract import Kernel
from rerun.bench import Seen
from rerun.conversation import Gone, NeverBegan
from sensitivity.machine import MutantBench
from sensitivity.mutants import NOTHING, Mutant, Symbol, mutants
from sensitivity.prepared import Prepared
from sensitivity.score import FALSE_ALARM, OUTCOME, QUIET, Ledger, Verdict, moved, noticed

GONE = "machine"                            # the finding of a test that did not end
AFTERWARDS = "leftovers"                    # folder of the tests that run last
MOST_WORK = 40.0                            # seconds of QEMU's processor time, on the unchanged kernel, for the tests of one mutant
REHEARSALS = 2                              # unchanged runs of everything in random order, which show what moves by itself
MUTANTS = 400                               # to try, without --most
MUTANTS_PER_CHECK = 40                      # mutants for each additional one that changes nothing
# For a mutant's tests (MutantBench.mutated): the first try, then the repetitions. The runs that prepare use others.
SEEDS = (1, 2, 3)
_FIRST_SEED = 100
console = Console(highlight=False)
T = TypeVar("T")


class Study:
    """All mutants of some functions against all tests of a bench."""

    def __init__(self, bench: MutantBench, guards: dict[str, list[str]], options: argparse.Namespace) -> None:
        self.bench, self.guards, self.options = bench, guards, options

    def run(self, names: list[str]) -> list[Verdict]:
        known = self.prepared(names)
        self.bench.tests, self.base, self.reached = known.tests, dict(known.base), known.reached
        self.judge_tests(*known.others)
        found = [mutant for symbol in known.symbols for mutant in mutants(symbol, known.code[symbol], known.addresses)]
        ledger = Ledger(self.options.report / "mutants.jsonl", self.key(names, "sensitivity/*.py", "report/*.py"))
        for mutant in found:
            if not self.reached.get(mutant.address) and mutant.id not in ledger.verdicts:
                ledger.add(self.verdict(mutant, "not reached"))
        chosen = spread([mutant for mutant in found if self.reached.get(mutant.address)], self.options.most or MUTANTS)
        checks = [mutant.unchanged() for mutant in chosen[::MUTANTS_PER_CHECK]]
        if absent := sorted(set(names) - {symbol.name.split(".")[0] for symbol in known.symbols}):
            console.print(f"not in this kernel, or inlined: {', '.join(absent)}", soft_wrap=True)
        console.print(f"{len(found)} mutants in {len(known.symbols)} functions; trying {len(chosen)} of those that a test reaches")
        self.try_all([mutant for mutant in checks + chosen if mutant.id not in ledger.verdicts], ledger)
        wanted = {mutant.id for mutant in found + checks}
        return [verdict for name, verdict in ledger.verdicts.items() if name in wanted]

    def prepared(self, names: list[str]) -> Prepared:
        """The saved machine, and what the tests do in it unchanged; from an earlier run if nothing has changed since.

        Raises SpecError where the kernel has none of the functions.
        """
        file, key = self.bench.state / "study.json", self.key(names)
        if known := Prepared.read(file, key):
            return known
        with console.status("booting, collecting, and running everything once"):
            symbols, addresses, first = self.twice(self.bench.study, names)
        if not symbols:
            raise SpecError(f"none of these functions is in this kernel, except inlined: {', '.join(names)}")
        code = self.bench.read(symbols)
        tests = [index for index, seen in first.items() if seen.cost_s <= MOST_WORK]
        for index in first.keys() - set(tests):
            console.print(f"test not used, it takes more than {MOST_WORK:.0f} s: {self.bench.tests[index]}", markup=False,
                          soft_wrap=True)
        with console.status("running everything again, to record coverage and random differences"):
            slots = self.options.slots
            with self.workers() as pool:
                watched = [pool.submit(self.twice, self.coverage, symbols, sorted(tests[part::slots])) for part in range(slots)]
                orders = [sorted(tests), *(self.shuffled(tests, seed) for seed in range(REHEARSALS))]
                base, *rehearsed = [pool.submit(self.twice, self.whole, order, seed) for seed, order in enumerate(orders, _FIRST_SEED)]
                reached: dict[int, set[int]] = {}
                third: dict[int, Seen] = {}
                for found, seen in map(Future.result, watched):
                    third |= seen
                    for address, reaching in found.items():
                        reached.setdefault(address, set()).update(reaching)
                known = Prepared(symbols, addresses, code, self.bench.tests, base.result(), [first, third, *map(Future.result, rehearsed)],
                                 {address: sorted(tests) for address, tests in reached.items()})
        known.write(file, key)
        return known

    def twice(self, action: Callable[..., T], *arguments: object) -> T:
        """Run the action; once more if a machine is lost although nothing was changed in it."""
        try:
            return action(*arguments)
        except Gone as gone:
            if self.bench.over:
                raise
            console.print(f"a machine was lost ({gone}): trying again", soft_wrap=True, markup=False)
            return action(*arguments)

    def judge_tests(self, *others: dict[int, Seen]) -> None:
        """Find what of each test varies; a test whose outcome varies says nothing about a mutant and is dropped."""
        self.unsteady = {index: {name for other in others for name in moved(base, other[index])} for index, base in self.base.items()}
        for index, base in list(self.base.items()):
            if outcomes := {other[index].outcome for other in others} - {base.outcome}:
                console.print(f"test not used, its outcome varies: {self.bench.tests[index]}: {base.outcome}, {min(outcomes)}",
                              markup=False, soft_wrap=True)
                del self.base[index]
        self.afterwards = [index for index in self.base if self.is_afterwards(index)]
        self.reached = {address: [index for index in tests if index in self.base and index not in self.afterwards]
                        for address, tests in self.reached.items()}
        self.controls: dict[tuple[int, ...], Seen | None] = {}

    def is_afterwards(self, index: int) -> bool:
        return self.folder(index) == AFTERWARDS

    def folder(self, index: int) -> str:
        """The test's family, or another folder of tests."""
        return self.bench.tests[index].split("/")[1]

    def shuffled(self, tests: list[int], seed: int) -> list[int]:
        """In random order, except for the tests that run last."""
        found = random.Random(seed).sample(tests, len(tests))
        return sorted(found, key=self.is_afterwards)

    def order(self, tests: list[int], families: Sequence[str]) -> list[int]:
        """Tests of the function's own families first, the quickest first: one that notices is enough."""
        return sorted(tests, key=lambda index: (self.folder(index) not in families, self.base[index].cost_s))

    def families(self, mutant: Mutant) -> tuple[str, ...]:
        """The families that guard its function."""
        base = mutant.function.split(".")[0]
        return tuple(family for family, names in self.guards.items() if base in names)

    def key(self, names: list[str], *sources: str) -> str:
        """Identifies a prepared machine: one kernel, one suite; and `sources` beside those that run in it."""
        kernel: Kernel = self.bench.kernel
        digest = hashlib.sha256(repr((kernel.key, self.bench.arguments, names)).encode())
        for pattern in ("conftest.py", "tests/[!h]*/*.py", "tests/halfopen/*.py", "netns/**/*.py", "fixtures/*.py", "rerun/*.py", *sources):
            for file in sorted(PROJECT.glob(pattern)):
                digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def whole(self, tests: Sequence[int], seed: int) -> dict[int, Seen]:
        """Run all these tests in one machine, unchanged."""
        with self.bench.mutated(tests, seed=seed) as (_machine, conversation):
            return dict(zip(tests, self.bench.results(conversation, tests), strict=True))

    def coverage(self, symbols: Sequence[Symbol], indexes: Sequence[int]) -> tuple[dict[int, set[int]], dict[int, Seen]]:
        """By address, which of these tests execute it; and what they did."""
        reached: dict[int, set[int]] = {}
        seen: dict[int, Seen] = {}
        for index, seen[index], addresses in self.bench.coverage(symbols, indexes):
            for address in addresses:
                reached.setdefault(address, set()).add(index)
        return reached, seen

    def try_all(self, chosen: Sequence[Mutant], ledger: Ledger) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        lock = threading.Lock()
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("mutants", total=len(chosen))

            def one(mutant: Mutant) -> None:
                verdict = self.try_one(mutant)
                with lock:
                    if self.bench.over:
                        return              # we killed its machine
                    ledger.add(verdict)
                    progress.advance(task)

            with self.workers() as pool:
                for _ in pool.map(one, chosen):
                    pass

    @contextmanager
    def workers(self) -> Iterator[ThreadPoolExecutor]:
        """One thread per machine. When one fails, or the run is interrupted, the machines of the others end at once."""
        with ThreadPoolExecutor(self.options.slots) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.bench.end()
                raise

    def try_one(self, mutant: Mutant) -> Verdict:
        reaching = self.order(self.reached[mutant.address], self.families(mutant))
        tests, most = self.affordable(reaching) + self.afterwards, len(reaching) + len(self.afterwards)
        ran = 0
        with self.bench.mutated(tests, mutant, seed=SEEDS[0]) as (machine, conversation):
            answers = self.bench.results(conversation, tests, self.costs(tests))
            for ran, index in enumerate(tests, 1):
                try:
                    found = noticed(self.base[index], next(answers), self.unsteady[index])
                except NeverBegan as error:
                    return self.verdict(mutant, "no start", how=str(error), reaching=most)
                except Gone as error:
                    found = {GONE: f"the machine ended: {error}"}
                if found:
                    with machine.held():
                        how = self.confirmed(mutant, tests[:ran], found)
                    if how:
                        return self.verdict(mutant, "killed", self.bench.tests[index], how, ran, most)
                    if GONE in found:
                        break
        return self.verdict(mutant, "survived", tests=ran, reaching=most)

    def confirmed(self, mutant: Mutant, tests: Sequence[int], found: Mapping[str, str]) -> str:
        """What the last of these tests noticed and is not random, or "". Another outcome, which the unchanged kernel never had, must come
        again in the same order, and not without the mutant; anything else must come each time in this test alone, and never without the
        mutant."""
        decisive = {OUTCOME, GONE}
        if found.keys() & decisive:
            happens = not self.control(tests, SEEDS[0]) & decisive and self.again(mutant, tests, SEEDS[1]) & decisive
            return next(iter(found.values())) if happens else ""
        last = tests[-1]
        alone, left = tests if last in self.afterwards else [last], set(found)
        for seed in SEEDS[1:]:
            if left and not (again := self.again(mutant, alone, seed)) & decisive:
                left &= again
        for seed in SEEDS:
            if left:
                left -= self.control(alone, seed)
        if not left:
            # It was random: ignore it in this test from now on.
            self.unsteady[last] |= found.keys()
        return next((how for name, how in found.items() if name in left), "")

    def again(self, mutant: Mutant, tests: Sequence[int], seed: int) -> Set[str]:
        """The names of what the last of these tests notices with the mutant."""
        return self.names(tests[-1], self.last_seen(tests, seed, mutant))

    def affordable(self, tests: list[int]) -> list[int]:
        """As many of them as MOST_WORK allows."""
        ends = accumulate(self.base[index].cost_s for index in tests)
        return [index for index, end in zip(tests, ends, strict=True) if end <= MOST_WORK] or tests[:1]

    def costs(self, tests: Sequence[int]) -> dict[int, float]:
        return {index: self.base[index].cost_s for index in tests}

    def control(self, tests: Sequence[int], seed: int) -> Set[str]:
        """The names of what the last of these tests notices on the unchanged kernel."""
        if (key := (seed, *tests)) not in self.controls:
            self.controls[key] = self.last_seen(tests, seed)
        return self.names(tests[-1], self.controls[key])

    def names(self, index: int, seen: Seen | None) -> Set[str]:
        """The names of what the test noticed; `seen` is None if the machine was lost."""
        return {GONE} if seen is None else noticed(self.base[index], seen, self.unsteady[index]).keys()

    def last_seen(self, tests: Sequence[int], seed: int, mutant: Mutant | None = None) -> Seen | None:
        """What the last of these tests does; None if the machine is lost."""
        with suppress(Gone), self.bench.mutated(tests, mutant, seed=seed) as (_machine, conversation):
            *_others, last = self.bench.results(conversation, tests, self.costs(tests))
            return last
        return None

    def verdict(self, mutant: Mutant, outcome: str, by: str = "", how: str = "", tests: int = 0, reaching: int = 0) -> Verdict:
        if mutant.kind == NOTHING:
            outcome = {"killed": FALSE_ALARM, "survived": QUIET}.get(outcome, outcome)
        return Verdict(mutant.id, mutant.function, self.families(mutant), mutant.text, outcome, by, how, tests, reaching)


def spread(found: list[Mutant], most: int) -> list[Mutant]:
    """At most `most` mutants, in turn from each function, evenly over its length; the same ones each time."""
    by_function: dict[str, list[Mutant]] = {}
    for mutant in found:
        by_function.setdefault(mutant.function, []).append(mutant)
    queues = [sorted(each, key=lambda mutant: hashlib.sha256(mutant.id.encode()).digest()) for each in by_function.values()]
    chosen: list[Mutant] = []
    while len(chosen) < most and any(queues):
        chosen += [queue.pop() for queue in queues if queue][:most - len(chosen)]
    return chosen
