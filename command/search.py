"""Runs one command on kernel after kernel for a bisection: what became of one of its results."""
import argparse
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from copy import copy

from bisection.machines import Unusable
from command.files import Account
from command.results import results_of
from command.session import CommandSession, Task
from common.errors import FetchError, SpecError
from kernels.cache import Cache
from kernels.extract import Kernel
from report.results import TestResult
from session.runs import KernelRun


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
        self._ahead: threading.Thread | None = None
        self._wanted: list[str] = []

    def attempt(self, spec: str, seed: int) -> TestResult:
        """Run the command in a restored machine. Raises Unusable, and KeyboardInterrupt after end()."""
        options = copy(self.options)
        options.seed, options.slots = seed, 1
        try:
            run = KernelRun("0", spec, spec, self.resolve(spec, self._caches.enter_context(Cache(say=lambda line: None))))
            with CommandSession(options, [run], self.owner, self.environment, quiet=True) as session:
                self._running.add(session)
                try:
                    done = session.run([self.task])
                finally:
                    self._running.discard(session)
        except (SpecError, FetchError) as error:
            raise Unusable(_first_line(error)) from None
        if self.over:
            raise KeyboardInterrupt
        result = results_of(run, done, seed, bool(options.suite))
        if run.error:
            raise Unusable(run.error.partition("\n")[0])
        return result.by_id().get(self.test) or TestResult(
            self.test, "lost", message=f"the command reports no such result{_others(result.tests)}")

    def ahead(self, specs: list[str]) -> None:
        """Fetch these meanwhile, one after the other, instead of what was wanted before."""
        self._wanted = specs
        if specs and not (self._ahead and self._ahead.is_alive()):
            self._ahead = threading.Thread(target=self._fetch_ahead, daemon=True)
            self._ahead.start()

    def keep(self, specs: Collection[str]) -> None:
        """Every kernel's saved state stays in the cache, for what is run there next."""

    def end(self) -> None:
        """End all machines; attempts end with KeyboardInterrupt."""
        self.over, self._wanted = True, []
        for session in list(self._running):
            session.end()
        self._caches.close()

    def _fetch_ahead(self) -> None:
        while self._wanted:
            with suppress(SpecError, FetchError, OSError):      # whoever needs it will say so
                self.resolve(self._wanted.pop(0), self._caches.enter_context(Cache(say=lambda line: None)))


def _others(tests: Sequence[TestResult]) -> str:
    """Some of the results that there are."""
    names = [test.id.partition("::")[2] for test in tests]
    return f"; there are: {', '.join(names[:5])}" if names else ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
