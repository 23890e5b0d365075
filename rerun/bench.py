"""A machine in which pytest has collected the tests: saved once, restored for each run."""
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from common.project import PROJECT
from fixtures.machine import CLOCK
from kernels.cache import Cache
from kernels.extract import Kernel
from report.results import Measurement
from rerun.conversation import COLLECTED, Conversation, Gone, NeverBegan
from vm.forms import MEASUREMENT, TRAFFIC, counts, each, either, one_of, record, row, text, whole
from vm.image import boot_image
from vm.machine import Machine
from vm.outlet import Misbehaved
from vm.own import own_directories
from vm.payload import pack_sources
from vm.state import copy_memory, kernel_parameters

# A test that is silent for longer loops or waits forever: seconds of QEMU's processor time beyond what the tests take.
LONGEST = 6.0
SLOWER = 4.0                                # times the cost of the test and of those before it
_BOOTED = 300                               # seconds (vm.patience)
# Of rerun.guest: the outcome, the message, measurements, traffic, the times, and the statement that failed.
_ANSWER = row(one_of("passed", "failed", "skipped"), text, each(MEASUREMENT), either(record({}), TRAFFIC), row(whole, whole), text)
M = TypeVar("M", bound=Machine)


@dataclass(frozen=True)
class Seen:
    """What one test did. `traffic` is report.traffic.numbers(), `cost_s` QEMU's processor time in seconds; `exactly` is the guest's
    whole answer, with the packets' bytes and the times on its own clock; `statement` is the line of the traceback that failed."""

    outcome: str
    message: str = ""
    measurements: tuple[Measurement, ...] = ()
    traffic: dict[str, float] = field(default_factory=dict)
    cost_s: float = 0.0
    exactly: object = None
    statement: str = ""


class Bench(Generic[M]):
    """The saved machine of one kernel, and what runs in it."""

    machine_class: type[M]
    conversation_class = Conversation

    def __init__(self, kernel: Kernel, directory: Path, state: Path, arguments: list[str], devices: Sequence[str] = ()) -> None:
        """`directory` is for what ends with this process, `state` for the saved machine; `arguments` are pytest's."""
        self.kernel, self.directory, self.state, self.arguments, self.devices = kernel, directory, state, arguments, devices
        self.tests: list[str] = []
        self.over = False
        self._running: set[M] = set()
        with Cache() as cache:
            self.initrd = boot_image(cache, kernel)
            self._sources = pack_sources(cache, own_directories(arguments))

    def prepare(self, warm: Callable[[Conversation], None] = lambda conversation: None, modules_stay: bool = False,
                booted: Path | None = None) -> None:
        """Boot, collect, run `warm`, and save the machine.  Raises Gone, VMError, OSError.

        `booted` is the saved state of a booted machine (vm.state.saved_state); the machine goes on from a copy of it.
        """
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir(parents=True)
        if booted:
            copy_memory(booted / "ram", self.state / "ram")
        with self.machine("first", booted, memory=self.state / "ram") as machine:
            if booted:
                machine.load()
            elif machine.event(_BOOTED) is None:
                raise Gone("the kernel did not boot")
            machine.order(self._sources, directory="/", cwd=str(PROJECT), id="guest", env={CLOCK: "virtual"})
            conversation = self.conversation_class(machine)
            self.tests = conversation.begin(self.arguments, modules_stay)
            warm(conversation)
            machine.await_question(LONGEST)
            machine.save(self.state)

    @contextmanager
    def restored(self, tests: Sequence[object], seed: int = 0, held: Callable[[M], AbstractContextManager[object]] = nullcontext,
                 **traits: object) -> Iterator[tuple[M, Conversation]]:
        """The machine as it was saved, with these tests to run. The order is sent while it stands still, so that they begin at the same
        instruction each time; `seed` sets when within a tick. `held` is entered meanwhile; `traits` are attributes of the machine."""
        with self.machine(f"m{time.monotonic_ns()}", self.state, **traits) as machine:
            machine.load()
            with held(machine):
                conversation = self.conversation_class(machine)
                conversation.resume()
                conversation.ask("run", (list(tests), seed))
                machine.line.answer()       # before `held` lets it run
            machine.go_on()
            yield machine, conversation

    def results(self, conversation: Conversation, tests: Sequence[int], expected: Mapping[int, float] | None = None) -> Iterator[Seen]:
        """What each test does, as it ends; `expected` is its cost in seconds of QEMU's processor time. Raises NeverBegan, Gone."""
        try:
            conversation.answer(LONGEST)
        except Gone as gone:
            raise NeverBegan(str(gone), gone.end) from None
        limit = conversation.machine.computed_s() + LONGEST
        for index in tests:
            began = conversation.machine.computed_s()
            if expected:
                limit += SLOWER * expected[index]
            exactly = conversation.answer(limit - began if expected else COLLECTED, _ANSWER)
            outcome, message, measurements, traffic, _times, statement = exactly
            cost = conversation.machine.computed_s() - began
            try:
                counted = counts(traffic)
            except Misbehaved as error:
                raise Gone(str(error)) from None
            yield Seen(outcome, message, tuple(measurements), counted, cost, exactly, statement)

    def end(self) -> None:
        """Kill all machines and let none begin anymore: later requests raise Gone."""
        self.over = True
        for machine in list(self._running):
            machine.process.kill()

    @contextmanager
    def machine(self, name: str, state: Path | None, **traits: object) -> Iterator[M]:
        """A machine that waits for its saved state, or boots if there is none; `traits` are its attributes. Raises Gone after end()."""
        directory = self.directory / name
        directory.mkdir(parents=True)
        try:
            with self.machine_class(self.kernel.vmlinuz, self.initrd, kernel_parameters(self.kernel), directory, "virtual", "tcg",
                                    self.devices) as machine:
                for trait, value in traits.items():
                    setattr(machine, trait, value)
                machine.start(state)
                self._running.add(machine)
                try:
                    if self.over:
                        raise Gone("no more machines are wanted")
                    yield machine
                finally:
                    self._running.discard(machine)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
