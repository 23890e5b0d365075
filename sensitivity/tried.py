"""`./kdrift sensitivity --tests`: which tests stay green whatever is done to their world (fixtures.disturbances)."""
import argparse
import hashlib
import json
import queue
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock
from typing import Any

from common.project import PROJECT
from common.threads import side_by_side
from kernels.extract import Kernel
from report.results import write_whole
from rerun.attempts import Collected, prepare_booted
from rerun.conversation import COLLECTED, Conversation, Gone
from sensitivity.study import console

UNREACHABLE = PROJECT / "sensitivity/unreachable.toml"
RED, GREEN, NOT_RUN, EXPLAINED = "red", "green", "not run", "explained"
SETS = 3                                    # of a function's parameters, so many are tried until it is red
MOST = 60                                   # disturbances of each, without --most
_LONGEST, _SLOWER = 20.0, 4.0               # seconds of QEMU's processor time, and times the undisturbed test's
_SEED = 1


@dataclass(frozen=True)
class TriedTest:
    """What became of one test function. `by` is the disturbance under which it was red first, `statement` the one that broke, `error` how;
    for one that was not run or is explained it says why. `untried` are its assertions that never failed. `runs` were made."""

    test: str
    outcome: str
    item: str = ""
    by: str = ""
    statement: str = ""
    error: str = ""
    untried: tuple[str, ...] = ()
    runs: int = 0


class World:
    """A restored machine, and the next one where it is lost. Raises Gone, VMError."""

    def __init__(self, bench: Collected) -> None:
        self._bench = bench
        self._stack = ExitStack()
        self._machine: tuple[Any, Conversation] | None = None

    def renew(self) -> None:
        self.close()
        self._machine = self._stack.enter_context(self._bench.restored([], _SEED))
        next(self._bench.results(self._machine[1], []), None)

    def run(self, index: int, asked: tuple[str, int, str] | None, within: float = COLLECTED) -> tuple[dict[str, Any], float]:
        """See fixtures.disturbances.run(); and what it cost in seconds of QEMU's processor time."""
        if self._machine is None:
            self.renew()
        assert self._machine
        machine, conversation = self._machine
        began = machine.computed_s()
        try:
            conversation.ask("disturb", (index, asked))
            found: dict[str, Any] = conversation.answer(within)
        except Gone:
            self.close()
            raise
        return found, machine.computed_s() - began

    def close(self) -> None:
        self._stack.close()
        self._machine = None


class SuiteStudy:
    """All tests of a bench, each under disturbances until it is red, or until each of its assertions was with `every`."""

    def __init__(self, kernel: Kernel, directory: Path, options: argparse.Namespace, selection: list[str]) -> None:
        self.bench = Collected(kernel, directory, options.report.absolute() / "tests-machine", selection)
        self.directory, self.options = directory, options
        self._ledger = options.report / "tests.jsonl"
        self._explained = tomllib.loads(UNREACHABLE.read_text())["explained"]
        self._lock = Lock()

    def run(self) -> list[TriedTest]:
        self._prepare()
        functions: dict[str, list[int]] = {}
        for index, name in enumerate(self.bench.tests):
            functions.setdefault(name.partition("[")[0], []).append(index)
        known = self._known()
        tried = {name: known[name] for name in functions if name in known}
        waiting: queue.SimpleQueue[tuple[str, list[int]]] = queue.SimpleQueue()
        for each in functions.items():
            if each[0] not in known:
                waiting.put(each)
        slots = range(self.options.slots)
        for _done in side_by_side(lambda _slot: self._work(waiting, tried), slots, len(slots), self.bench.end):
            pass
        return [tried[name] for name in functions]

    def _prepare(self) -> None:
        """The saved machine; that of an earlier run if nothing has changed since."""
        file, key = self.bench.state / "tests.json", self._key()
        try:
            document = json.loads(file.read_text())
        except (FileNotFoundError, ValueError):
            document = {}
        if document.get("key") == key:
            self.bench.tests = document["tests"]
            return
        with console.status("booting and collecting"):
            prepare_booted(self.bench, self.directory / "boot")
        file.write_text(json.dumps({"key": key, "tests": self.bench.tests}))

    def _key(self) -> str:
        digest = hashlib.sha256(repr((self.bench.kernel.key, self.bench.arguments)).encode())
        for pattern in ("conftest.py", "tests/[!h]*/*.py", "tests/h[!a]*/*.py", "netns/**/*.py", "fixtures/*.py", "rerun/guest.py"):
            for file in sorted(PROJECT.glob(pattern)):
                digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def _digest(self, test: str, outcome: str) -> str:
        """Of the kernel, the test's file and the conftest.py beside it; of the disturbances too where others may have another outcome."""
        file = PROJECT / test.partition("::")[0]
        sources = [file, file.parent / "conftest.py", *([] if outcome == RED else [PROJECT / "fixtures/disturbances.py", UNREACHABLE])]
        parts = [each.read_bytes() for each in sources if each.exists()]
        return hashlib.sha256(b"\0".join([self.bench.kernel.key.encode(), str(self.options.every).encode(), *parts])).hexdigest()[:16]

    def _known(self) -> dict[str, TriedTest]:
        """What an earlier run has found, and has not changed since. The last line may be half written."""
        found = {}
        for line in self._ledger.read_text().splitlines(keepends=True) if self._ledger.exists() else []:
            if line.endswith("\n"):
                entry = json.loads(line)
                if entry.pop("digest") == self._digest(entry["test"], entry["outcome"]):
                    found[entry["test"]] = TriedTest(**{**entry, "untried": tuple(entry["untried"])})
        return found

    def _keep(self, found: TriedTest) -> None:
        with self._ledger.open("a") as file:
            file.write(json.dumps({**asdict(found), "digest": self._digest(found.test, found.outcome)}) + "\n")

    def _work(self, waiting: queue.SimpleQueue[tuple[str, list[int]]], tried: dict[str, TriedTest]) -> None:
        world = World(self.bench)
        try:
            while True:
                try:
                    name, indexes = waiting.get_nowait()
                except queue.Empty:
                    return
                found = self._try(world, name, indexes)
                with self._lock:
                    tried[name] = found
                    self._keep(found)
                    if found.outcome == GREEN:
                        console.print(f"green: {name}", markup=False, soft_wrap=True)
        finally:
            world.close()

    def _try(self, world: World, name: str, indexes: Sequence[int]) -> TriedTest:
        for each in self._explained:
            if fnmatchcase(name, each["test"]):
                return TriedTest(name, EXPLAINED, error=each["reason"])
        found = TriedTest(name, NOT_RUN, error="no parameters")
        for index in spread_over(indexes, SETS):
            found = better(found, self._try_one(world, name, index))
            if found.outcome == RED and not (self.options.every and found.untried):
                break
        return found

    def _try_one(self, world: World, name: str, index: int) -> TriedTest:
        item, runs = self.bench.tests[index], 0
        try:
            seen, cost = world.run(index, None)
            if seen["outcome"] != "passed":         # or it is what an earlier test has left
                world.renew()
                seen, cost = world.run(index, None)
        except Gone as gone:
            if self.bench.over:
                raise
            return TriedTest(name, NOT_RUN, item, error=f"undisturbed: {gone}")
        if seen["outcome"] != "passed":
            return TriedTest(name, NOT_RUN, item, error=f"undisturbed: {seen['outcome']}")
        untried: dict[int, str] = dict(seen["assertions"])
        first = TriedTest(name, GREEN, item)
        for asked in seen["candidates"][:self.options.most or MOST]:
            runs += 1
            try:
                disturbed, _cost = world.run(index, tuple(asked), _LONGEST + _SLOWER * cost)
            except Gone:
                if self.bench.over:
                    raise
                continue                            # nothing is known of it
            if disturbed["red"]:
                statement, line, error = disturbed["red"]
                untried.pop(line, None)
                if first.outcome == GREEN:
                    first = TriedTest(name, RED, item, in_words(asked), statement, error)
                if not self.options.every or not untried:
                    break
        return TriedTest(**{**asdict(first), "untried": tuple(untried.values()), "runs": runs})


def in_words(asked: Sequence[Any]) -> str:
    name, number, how = asked
    if not how:
        return str(name)
    return f"{name}(), {'each time' if number == 0 else f'call {number}'}: {how}"


def spread_over(indexes: Sequence[int], most: int) -> Iterator[int]:
    """At most so many of them, from the first to the last."""
    count = min(most, len(indexes))
    return iter(dict.fromkeys(indexes[number * (len(indexes) - 1) // max(count - 1, 1)] for number in range(count)))


def better(one: TriedTest, other: TriedTest) -> TriedTest:
    """Of two parameter sets of a function: the red one, else the green one; an assertion is tried if it was in one of them."""
    order = (RED, GREEN, NOT_RUN)
    chosen = min(other, one, key=lambda each: order.index(each.outcome))
    both = {one.outcome, other.outcome} == {RED}
    untried = tuple(each for each in chosen.untried if each in one.untried) if both else chosen.untried
    return TriedTest(**{**asdict(chosen), "untried": untried, "runs": one.runs + other.runs})


def summary(tried: Sequence[TriedTest]) -> list[str]:
    """The counts, then the tests that stayed green, those that did not run, and the assertions that never failed."""
    outcomes = [each.outcome for each in tried]
    lines = [", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in (RED, GREEN, NOT_RUN, EXPLAINED))
             + f"; {sum(each.runs for each in tried)} disturbed runs"]
    lines += [f"green     {each.test}" for each in tried if each.outcome == GREEN]
    lines += [f"not run   {each.test}: {each.error}" for each in tried if each.outcome == NOT_RUN]
    return lines + [f"explained {each.test}: {each.error}" for each in tried if each.outcome == EXPLAINED]


def write_tried(directory: Path, kernel: Kernel, tried: Sequence[TriedTest]) -> None:
    """tests.json: all of them."""
    document: Mapping[str, object] = {"kernel": kernel.release, "tests": [asdict(each) for each in tried]}
    write_whole(directory / "tests.json", json.dumps(document, indent=1) + "\n")
