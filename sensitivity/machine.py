"""A machine in which pytest has collected the tests, saved, and restored for each mutant."""
import os
import shutil
import time
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from execnet import XSpec
from execnet.gateway import Gateway
from execnet.gateway_base import Popen2IO, get_execmodel

from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.image import boot_image
from kernels.launcher import ending, kernel_parameters
from kernels.payload import PROJECT, pack_sources
from kernels.vm import Machine, VMError
from report.traffic import numbers
from sensitivity import guest
from sensitivity.gdb import Gdb
from sensitivity.mutants import Mutant, Symbol, read_symbols

# By then a test that says nothing is in a loop, or waits for ever: seconds that QEMU computes, beyond what the tests take, and of wall time.
LONGEST = 6.0
SLOWER = 4.0                                # times as long as the tests before it and itself take
LONGEST_IDLE = 15.0                         # seconds of wall time in which QEMU has nothing to compute: nothing will ever come
LONGEST_WAIT = 180.0
_BOOTED = 900                               # seconds of wall time; on a busy host it takes minutes
_COLLECTED = 300.0                          # seconds that QEMU may compute until all is collected, or until a test ends that nobody knows


class Gone(Exception):
    """The guest crashed, or fell silent."""


class NeverBegan(Gone):
    """It did so before its first test."""


@dataclass(frozen=True)
class Seen:
    """What one test did. `traffic` is report.traffic.numbers(), `cost_s` the seconds that QEMU computed."""

    outcome: str
    message: str = ""
    measurements: tuple[dict, ...] = ()
    traffic: dict[str, float] = field(default_factory=dict)
    cost_s: float = 0.0


class Watched(Machine):
    """A machine with a gdb port, which can tell what it executes of some functions.

    QEMU logs an instruction when it translates it, just before it is executed for the first time. What is written to memory it
    translates again: so the same bytes are written once more whenever a new account begins.  Logging each execution takes several times as long.
    """

    functions: Sequence[Symbol] = ()        # by address
    _position = 0                           # in the log, up to which it has been read

    def executed(self) -> set[int]:
        """The addresses of the instructions that were executed since the last call, or the start; the machine goes on."""
        with open(self.directory / "translated.log", "rb") as log:
            log.seek(self._position)
            data = log.read()
        self._position += len(data)
        # 0xffffffff81aef240:  48 8b 7f 18              movq     0x18(%rdi), %rdi
        found = {int(line[:line.index(b":")], 16) for line in data.split(b"\n") if line.startswith(b"0x")}
        if found:
            starts = [function.address for function in self.functions]
            gdb = Gdb(self.directory / "gdb")
            for number in {bisect_right(starts, address) - 1 for address in found}:
                # As they are now: the kernel changes its code, for tracing and for static branches.
                gdb.write(starts[number], gdb.read(starts[number], self.functions[number].size))
            gdb.close()
        return found

    @contextmanager
    def held(self) -> Iterator[None]:
        """It stands still for the time of the block, and leaves the processor to others. One that has ended is left alone."""
        self._tell("stop")
        yield
        self._tell("cont")

    def _tell(self, order: str) -> None:
        with suppress(VMError), self.monitor("holding the machine") as monitor:
            monitor.cmd(order)

    def computed_s(self) -> float:
        """The processor time that QEMU has had, in seconds, which does not depend on what else the host does. Source: proc_pid_stat(5)."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _devices(self) -> list[str]:
        words = [*super()._devices(), "-gdb", f"unix:{self.directory}/gdb,server=on,wait=off"]
        if self.functions:
            filters = ",".join(f"{each.address:#x}+{each.size:#x}" for each in self.functions)
            words += ["-d", "in_asm", "-dfilter", filters, "-D", f"{self.directory}/translated.log"]
        return words


class Conversation:
    """The channel to the tests' process in the guest."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        link = machine.gateway.makefile("rwb")
        self._gateway = Gateway(Popen2IO(link, link, get_execmodel("thread")), XSpec("popen//id=guest"))
        self.channel = None

    def begin(self, arguments: list[str]) -> list[str]:
        """Have pytest collect; the node ids."""
        self.channel = self._gateway.remote_exec(guest)
        self.channel.send({"arguments": arguments, "directory": str(PROJECT)})
        return self.answer(_COLLECTED)

    def resume(self) -> None:
        """Go on where the saved machine stood: the first channel of a gateway has the same number."""
        self.channel = self._gateway.newchannel()

    def ask(self, order: str, argument: object) -> None:
        """Raises Gone."""
        try:
            self.channel.send((order, argument))
        except OSError as error:
            raise Gone(str(error)) from None

    def answer(self, within: float) -> object:
        """The next one, `within` so many seconds of QEMU's processor time. Raises Gone."""
        computed, active = self.machine.computed_s(), time.monotonic()
        ends, deadline = computed + within, active + LONGEST_WAIT + 10 * within
        while True:
            try:
                return self.channel.receive(timeout=0.5)
            except self.channel.TimeoutError:
                if self.machine.process.poll() is not None:
                    raise Gone(self._ended()) from None
                before, computed, now = computed, self.machine.computed_s(), time.monotonic()
                if computed > before:
                    active = now
                if computed > ends or now > deadline or now > active + LONGEST_IDLE:
                    raise Gone(f"silent for {within:.0f} s") from None
            except self.channel.RemoteError as error:
                raise Gone(str(error).splitlines()[-1]) from None
            except EOFError:
                raise Gone(self._ended()) from None

    def _ended(self) -> str:
        """Why nothing comes any more. Process 1 says how pytest has ended before it ends the machine."""
        done = None
        with suppress(VMError, OSError):
            done = self.machine.event(5)
        self.machine.wait(5)
        return ending(self.machine, f"status {done['status']}" if done else None)["why"]


class Bench:
    """The saved machine of one kernel, and what runs in it."""

    def __init__(self, kernel: Kernel, directory: Path, state: Path, arguments: list[str]) -> None:
        """`directory` is for what ends with this process, `state` for the saved machine."""
        self.kernel, self.directory, self.state, self.arguments = kernel, directory, state, arguments
        self.tests: list[str] = []
        self.over = False
        self._running: set[Watched] = set()
        with Cache() as cache:
            self._initrd = boot_image(cache, kernel)
            self._sources = pack_sources(cache)

    def prepare(self, names: list[str]) -> tuple[list[Symbol], dict[int, str], dict[int, Seen]]:
        """Boot, collect, run everything once, the last test first, so that all modules are loaded, and save. The functions of these
        names, the names of all addresses, and what the tests did."""
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir()
        with self._machine("first", restored=False) as machine:
            if machine.event(_BOOTED) is None:
                raise Gone("the kernel did not boot")
            machine.order(self._sources, directory=str(PROJECT), cwd=str(PROJECT), id="guest", env={"KDRIFT_CLOCK": "virtual"})
            conversation = Conversation(machine)
            self.tests = conversation.begin(self.arguments)
            backwards = list(reversed(range(len(self.tests))))
            conversation.ask("run", (backwards, 0))
            first = dict(zip(backwards, self.results(conversation, backwards)))
            conversation.ask("symbols", None)
            found, addresses = read_symbols(zlib.decompress(conversation.answer(_COLLECTED)).decode(), set(names))
            machine.save(self.state)
        return found, addresses, first

    @contextmanager
    def restored(self, tests: Sequence[int], mutant: Mutant | None = None, functions: Sequence[Symbol] = (), seed: int = 0) -> Iterator[tuple[Watched, Conversation]]:
        """The machine as it was saved, with one instruction changed, and with these tests to run. They are ordered while it stands
        still, so that they begin at the same instruction each time; `seed` says when within a tick. Of `functions` it can tell what it executes."""
        with self._machine(f"m{time.monotonic_ns()}", functions) as machine:
            with machine.monitor("restoring") as monitor:
                machine.load(monitor)
                gdb = Gdb(machine.directory / "gdb")
                if mutant:
                    gdb.write(mutant.address, mutant.new)
                conversation = Conversation(machine)
                conversation.resume()
                conversation.ask("run", (list(tests), seed))
                gdb.close()
            yield machine, conversation

    def read(self, symbols: list[Symbol]) -> dict[Symbol, bytes]:
        """The functions' code."""
        with self._machine("reader") as machine:
            with machine.monitor("restoring") as monitor:
                machine.load(monitor)
            gdb = Gdb(machine.directory / "gdb")
            return {symbol: gdb.read(symbol.address, symbol.size) for symbol in symbols}

    def end(self) -> None:
        """Kill all machines, and let none begin any more: what is asked of them raises Gone."""
        self.over = True
        for machine in list(self._running):
            machine.process.kill()

    @contextmanager
    def _machine(self, name: str, functions: Sequence[Symbol] = (), restored: bool = True) -> Iterator[Watched]:
        """It waits for its saved state, or boots and has its memory where it can be saved. Raises Gone after end()."""
        directory = self.directory / name
        directory.mkdir()
        try:
            with Watched(self.kernel.vmlinuz, self._initrd, kernel_parameters(self.kernel), directory, "virtual", "tcg") as machine:
                machine.functions = sorted(functions, key=lambda function: function.address)
                machine.memory = None if restored else self.state / "ram"
                machine.start(self.state if restored else None)
                self._running.add(machine)
                try:
                    if self.over:
                        raise Gone("no more machines are wanted")
                    yield machine
                finally:
                    self._running.discard(machine)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def results(self, conversation: Conversation, tests: Sequence[int], expected: Mapping[int, float] | None = None) -> Iterator[Seen]:
        """What each test does, as it ends; `expected` is how long it takes, in seconds that QEMU computes. Raises NeverBegan, Gone."""
        try:
            conversation.answer(LONGEST)
        except Gone as gone:
            raise NeverBegan(str(gone)) from None
        limit = conversation.machine.computed_s() + LONGEST
        for index in tests:
            began = conversation.machine.computed_s()
            if expected:
                limit += SLOWER * expected[index]
            outcome, message, measurements, traffic = conversation.answer(limit - began if expected else _COLLECTED)
            yield Seen(outcome, message, tuple(measurements), numbers(**traffic), conversation.machine.computed_s() - began)
