"""Runs one test on kernels: each is fetched, booted once, and kept at the point where pytest has collected the test."""
import shutil
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path

from common.errors import FetchError, NoSpaceError, SpecError, is_full, trouble_of
from common.threads import Ahead
from kernels.cache import Cache, sha256_of
from kernels.extract import Kernel
from report.results import TestResult
from report.signature import signature
from rerun import guest
from rerun.attempts import Attempts
from rerun.conversation import Gone
from vm.image import ImageError
from vm.payload import content_key
from vm.qemu import VMError


class Unusable(Exception):
    """A kernel cannot be had, or does not boot: nothing is known of it. The message says why in one line."""


def sources_key(test: str) -> str:
    """A key that changes with the sources that are sent to run the test. Raises OSError, TooMuch."""
    return f"{content_key([test.partition('::')[0]])}-{sha256_of(Path(guest.__file__))[:16]}"


class Machines:
    """`resolve` gives the kernel of a specification, from whichever thread; `directory` is for the machines, 300 MB for each kernel."""

    def __init__(self, test: str, directory: Path, resolve: Callable[[str, Cache], Kernel], devices: Sequence[str] = (),
                 options: Sequence[str] = ()) -> None:
        self.test, self.directory, self.resolve, self.devices, self.options = test, directory, resolve, devices, options
        self.over = False
        self._benches: dict[str, Attempts] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._caches = ExitStack()          # kernels are in use, and not pruned, until the end
        self._ahead = Ahead(self.kernel, (Unusable, FetchError, OSError))

    def kernel(self, spec: str) -> Kernel:
        """The kernel, fetched. Raises Unusable, NoSpaceError."""
        try:
            return self.resolve(spec, self._caches.enter_context(Cache(say=lambda line: None)))
        except NoSpaceError:
            raise
        except (SpecError, FetchError) as error:
            raise Unusable(trouble_of(error)) from None

    def attempt(self, spec: str, seed: int) -> TestResult:
        """Run the test on a kernel, booted if it is the first time. Raises Unusable, NoSpaceError, and KeyboardInterrupt after end()."""
        try:
            with self._locks.setdefault(spec, threading.Lock()):
                if spec not in self._benches:
                    self._benches[spec] = self._prepared(spec)
            return self._result(self._benches[spec], seed)
        except (Gone, VMError, ImageError, OSError) as error:
            if self.over:
                raise KeyboardInterrupt from None
            if is_full(error):
                raise NoSpaceError(f"no space left for machines in {self.directory}: free some space, for example with "
                                   "`./kdrift kernels --prune`") from None
            raise Unusable(trouble_of(error)) from None

    def ahead(self, specs: list[str]) -> None:
        """Fetch these meanwhile, one after the other, instead of what was wanted before."""
        self._ahead.want(specs)

    def keep(self, specs: Collection[str]) -> None:
        """Remove the machines of all other kernels."""
        for spec in self._benches.keys() - set(specs):
            shutil.rmtree(self._place(spec), ignore_errors=True)
            del self._benches[spec]

    def end(self) -> None:
        """Kill all machines; attempts end with KeyboardInterrupt."""
        self.over = True
        self._ahead.want([])
        for bench in list(self._benches.values()):
            bench.end()
        self._caches.close()

    def _place(self, spec: str) -> Path:
        return self.directory / f"{abs(hash(spec)):x}"

    def _prepared(self, spec: str) -> Attempts:
        kernel = self.kernel(spec)
        bench = Attempts(kernel, [self.test], self._place(spec), self.devices, options=self.options, for_once=True)
        try:
            self._benches[spec] = bench     # so that end() reaches it
            bench.prepare()
            if self.test not in bench.tests:
                raise Gone("pytest does not find the test in the machine")
        except BaseException:
            del self._benches[spec]
            shutil.rmtree(self._place(spec), ignore_errors=True)
            raise
        return bench

    def _result(self, bench: Attempts, seed: int) -> TestResult:
        try:
            seen = bench.seen(self.test, seed)
        except Gone as gone:
            if self.over:
                raise
            what = "the kernel crashed" if gone.end == "crashed" else "the machine was lost"
            message = "\n".join([f"{what}: {gone}", *gone.console])
            return TestResult(self.test, gone.end, message=message, signatures=[signature(message)])
        shown = [signature(seen.message, seen.statement)] if seen.outcome == "failed" else []
        return TestResult(self.test, seen.outcome, message=seen.message, measurements=list(seen.measurements), traffic=seen.traffic,
                          signatures=shown)
