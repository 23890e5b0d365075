"""Attempts at single tests of one kernel, in machines restored to the point where these tests are collected."""
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.project import PROJECT
from kernels.cache import Cache
from kernels.extract import Kernel
from rerun.bench import Bench, Seen
from rerun.confirm import Attempt
from rerun.conversation import Conversation, Gone
from vm.image import python_command
from vm.job import Events, Job
from vm.machine import Machine
from vm.own import own_arguments, own_directories
from vm.state import kernel_parameters, saved_state, state_key


class Collected(Bench[Machine]):
    """The saved machine of a kernel."""

    machine_class = Machine


def prepare_booted(bench: Bench[Machine], session: Path, deadline: float = 120,
                   warm: Callable[[Conversation], None] = lambda conversation: None, for_once: bool = False) -> None:
    """Prepare a bench from the kernel's saved state after boot; `session` is a new directory for the boot. With `for_once` the state is
    used if the cache has it, and not saved otherwise.  Raises Gone, VMError, ImageError, CacheError."""
    session.mkdir(parents=True)
    job = Job(kernel=bench.kernel, clock="virtual", accel="tcg", slots=1, fresh_boot=False, devices=list(bench.devices), deadline=deadline,
              python=python_command(), cwd=str(PROJECT), session=str(session), owner=os.getpid(), events=str(session / "events"))
    machine = Machine(bench.kernel.vmlinuz, bench.initrd, kernel_parameters(bench.kernel), session, "virtual", "tcg", bench.devices)
    with Cache(say=lambda line: None) as cache:
        known = cache.entry("states", state_key(machine, job)) if for_once else saved_state(machine, cache, job, Events(job.events))
        bench.prepare(warm, booted=known)


class Attempts:
    """The caller removes `directory`; prepare() makes the machine with the tests there."""

    bench: Collected | None = None

    def __init__(self, kernel: Kernel, tests: Sequence[str], directory: Path, devices: Sequence[str] = (), deadline: float = 120,
                 options: Sequence[str] = (), for_once: bool = False) -> None:
        """`options` are pytest's in the guest.  A kernel that is tried `for_once` gets no saved state of its own in the cache (400 MB)."""
        self._kernel, self._directory = kernel, directory
        self._arguments = [*options, *own_arguments(own_directories(tests)), *tests]
        self._devices, self._deadline, self._for_once = devices, deadline, for_once

    @property
    def tests(self) -> list[str]:
        """The tests that pytest has collected."""
        return self.bench.tests if self.bench else []

    def prepare(self) -> None:
        """Boot a machine and have the tests collected.  Raises Gone, VMError, ImageError, CacheError."""
        self.bench = Collected(self._kernel, self._directory, self._directory / "collected", self._arguments, self._devices)
        prepare_booted(self.bench, self._directory / "boot", self._deadline, for_once=self._for_once)

    def end(self) -> None:
        """Kill its machines."""
        if self.bench:
            self.bench.end()

    def attempt(self, test: str, seed: int) -> Attempt:
        """Run the test in a restored machine.  Raises VMError."""
        try:
            seen = self.seen(test, seed)
        except Gone as gone:
            return Attempt(gone.end, str(gone), str(gone))
        return Attempt(seen.outcome, seen.message, seen.exactly)

    def seen(self, test: str, seed: int) -> Seen:
        """Likewise, all that the test did.  Raises VMError, Gone."""
        assert self.bench
        index = self.bench.tests.index(test)
        with self.bench.restored([index], seed) as (_machine, conversation):
            return next(self.bench.results(conversation, [index]))


@contextmanager
def no_machines_left(*benches: Attempts) -> Iterator[None]:
    """If the block ends early, for whatever reason, end their machines too."""
    try:
        yield
    except BaseException:
        for each in benches:
            each.end()
        raise
