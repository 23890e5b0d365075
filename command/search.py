"""Runs one command again, in new machines: for a bisection, a bug report, or to see whether a regression is certain."""
import argparse
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from copy import copy

from bisection.machines import Unusable
from command.files import Account
from command.results import results_of
from command.session import CommandSession, Task
from common.errors import FetchError, SpecError, trouble_of
from common.threads import Ahead
from kernels.cache import Cache
from kernels.extract import Kernel
from report.results import TestResult
from rerun.confirm import Attempt
from session.runs import KernelRun
from vm.qemu import VMError


class CommandMachines:
    """`test` is the result that is asked for, `task` the command that reports it; `resolve` gives the kernel of a specification, from
    whichever thread."""

    def __init__(self, options: argparse.Namespace, task: Task, test: str, owner: Account, environment: dict[str, str],
                 resolve: Callable[[str, Cache], Kernel]) -> None:
        self.options, self.task, self.test, self.owner, self.environment = options, task, test, owner, environment
        self.resolve = resolve
        self.over = False
        self._running: set[CommandSession] = set()
        self._caches = ExitStack()          # kernels are in use, and not pruned, until the end
        self._ahead = Ahead(self._fetched, (SpecError, FetchError, OSError))

    def attempt(self, spec: str, seed: int) -> TestResult:
        """What becomes of the result. Raises Unusable, and KeyboardInterrupt after end()."""
        tests = self.every(spec, seed)[0]
        return tests.get(self.test) or TestResult(self.test, "lost", message=f"the command reports no such result{_others(tests)}")

    def every(self, spec: str, seed: int) -> tuple[dict[str, TestResult], object]:
        """Run the command in a restored machine: its results by id, and all that is the same under the same seed. Raises as attempt()."""
        options = copy(self.options)
        options.seed, options.slots = seed, 1
        try:
            run = KernelRun("0", spec, spec, self._fetched(spec))
            with CommandSession(options, [run], self.owner, self.environment, quiet=True) as session:
                self._running.add(session)
                try:
                    done = session.run([self.task])
                finally:
                    self._running.discard(session)
        except (SpecError, FetchError) as error:
            raise Unusable(trouble_of(error)) from None
        if self.over:
            raise KeyboardInterrupt
        if run.error:
            raise Unusable(run.error.partition("\n")[0])
        return results_of(run, done, seed, bool(options.suite)).by_id(), [(each.output, each.log, each.outcome) for each in done]

    def ahead(self, specs: list[str]) -> None:
        """Fetch these meanwhile, one after the other, instead of what was wanted before."""
        self._ahead.want(specs)

    def keep(self, specs: Collection[str]) -> None:
        """Every kernel's saved state stays in the cache, for what is run there next."""

    def end(self) -> None:
        """End all machines; attempts end with KeyboardInterrupt."""
        self.over = True
        self._ahead.want([])
        for session in list(self._running):
            session.end()
        self._caches.close()

    def _fetched(self, spec: str) -> Kernel:
        return self.resolve(spec, self._caches.enter_context(Cache(say=lambda line: None)))


class CommandBench:
    """The commands of a session on one kernel, for rerun.confirm. A command runs once for each seed, or twice if that is asked for; all its
    results are taken from there."""

    def __init__(self, machines: Callable[[Task], CommandMachines], tasks: Sequence[Task], spec: str) -> None:
        self.machines, self.tasks, self.spec = machines, tasks, spec
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, int], list[tuple[dict[str, TestResult], object]]] = {}
        self._asked: Counter[tuple[str, int]] = Counter()

    def attempt(self, test: str, seed: int) -> Attempt:
        """Raises VMError if the kernel or the machine cannot be had."""
        task = next(each for each in self.tasks if test.startswith(f"{each.name}::"))
        with self._lock:                    # one after the other: a command's results come from the same run
            self._asked[test, seed] += 1
            runs = self._runs.setdefault((task.name, seed), [])
            while len(runs) < self._asked[test, seed]:
                try:
                    runs.append(self.machines(task).every(self.spec, seed))
                except Unusable as why:
                    raise VMError(str(why)) from None
            results, seen = runs[self._asked[test, seed] - 1]
        result = results.get(test) or TestResult(test, "lost", message="not reported")
        return Attempt(result.outcome, result.message, seen)


def _others(tests: Collection[str]) -> str:
    """Some of the results that there are."""
    names = [test.partition("::")[2] for test in tests]
    return f"; there are: {', '.join(names[:5])}" if names else ""
