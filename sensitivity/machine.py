"""A machine in which pytest has collected the tests, saved, and restored for each mutant."""
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from execnet import XSpec
from execnet.gateway import Gateway
from execnet.gateway_base import Popen2IO, get_execmodel

from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.image import boot_image
from kernels.launcher import boot, kernel_parameters
from kernels.payload import PROJECT, pack_sources
from kernels.vm import Machine
from sensitivity import guest
from sensitivity.gdb import Gdb
from sensitivity.mutants import Mutant, Symbol

LONGEST = 25.0                              # seconds of wall time that a test may be silent: a loop in the kernel
_COLLECTED = 300                            # seconds until all is collected and warm, under emulation on a busy host


class Gone(Exception):
    """The guest crashed, or fell silent."""


@dataclass(frozen=True)
class Seen:
    """What one test did."""

    outcome: str
    message: str = ""
    measurements: tuple[dict, ...] = ()
    wall_s: float = field(default=0.0, compare=False)


class Watched(Machine):
    """A machine with a gdb port, which can log the blocks of code that it executes."""

    ranges: tuple[Symbol, ...] = ()         # functions whose blocks are logged

    @property
    def blocks(self) -> Path:
        return self.directory / "blocks.log"

    def _devices(self) -> list[str]:
        words = [*super()._devices(), "-gdb", f"unix:{self.directory}/gdb,server=on,wait=off"]
        if self.ranges:
            filters = ",".join(f"{each.address:#x}+{each.size:#x}" for each in self.ranges)
            words += ["-d", "exec,nochain", "-dfilter", filters, "-D", str(self.blocks)]
        return words


class Conversation:
    """The channel to the tests' process in the guest."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        link = machine.gateway.makefile("rwb")
        self._gateway = Gateway(Popen2IO(link, link, get_execmodel("thread")), XSpec("popen//id=guest"))
        self.channel = None

    def begin(self, arguments: list[str]) -> list[str]:
        """Have pytest collect; the node ids."""
        self.channel = self._gateway.remote_exec(guest)
        self.channel.send({"arguments": arguments, "directory": str(PROJECT)})
        return self._receive(_COLLECTED)

    def resume(self) -> None:
        """Go on where the saved machine stood: the first channel of a gateway has the same number."""
        self.channel = self._gateway.newchannel()

    def ask(self, order: str, argument: object, within: float = LONGEST) -> object:
        """Raises Gone."""
        try:
            self.channel.send((order, argument))
        except OSError as error:
            raise Gone(str(error)) from None
        return self._receive(within)

    def _receive(self, within: float) -> object:
        deadline = time.monotonic() + within
        while True:
            try:
                return self.channel.receive(timeout=0.5)
            except self.channel.TimeoutError:
                if self._machine.process.poll() is not None:
                    raise Gone("the machine ended") from None
                if time.monotonic() > deadline:
                    raise Gone(f"silent for {within:g} s") from None
            except (EOFError, self.channel.RemoteError) as error:
                raise Gone(str(error).splitlines()[-1] if str(error) else "the machine ended") from None


class Bench:
    """The saved machine of one kernel, and what runs in it."""

    def __init__(self, kernel: Kernel, directory: Path, arguments: list[str]) -> None:
        self.kernel, self.directory, self.arguments = kernel, directory, arguments
        self.state = directory / "state"
        self.tests: list[str] = []

    def prepare(self, names: list[str]) -> tuple[list[Symbol], dict[int, str]]:
        """Boot, collect, run everything once so that all modules are loaded, and save. The functions of these names, and the names of
        all addresses."""
        with Cache() as cache:
            self._initrd = boot_image(cache, self.kernel)
            sources = pack_sources(cache)
        self.state.mkdir()
        with self._machine("first") as machine:
            machine.memory = self.state / "ram"
            boot(machine)
            machine.order(sources, directory=str(PROJECT), cwd=str(PROJECT), id="guest", env={"KDRIFT_CLOCK": "virtual"})
            conversation = Conversation(machine)
            self.tests = conversation.begin(self.arguments)
            for index in range(len(self.tests)):
                conversation.ask("run", index, _COLLECTED)
            found, addresses = conversation.ask("symbols", names, _COLLECTED)
            machine.save(self.state)
        return [Symbol(*each) for each in found], addresses

    @contextmanager
    def restored(self, mutant: Mutant | None = None, ranges: tuple[Symbol, ...] = ()) -> Iterator[tuple[Watched, Conversation]]:
        """The machine as it was saved, with one instruction changed."""
        with self._machine(f"m{time.monotonic_ns()}", ranges) as machine:
            machine.start(self.state)
            with machine.monitor("restoring") as monitor:
                machine.load(monitor)
                if mutant:
                    gdb = Gdb(machine.directory / "gdb")
                    gdb.write(mutant.address, mutant.new)
                    gdb.close()
                monitor.cmd("cont")
            conversation = Conversation(machine)
            conversation.resume()
            yield machine, conversation

    def read(self, symbols: list[Symbol]) -> dict[Symbol, bytes]:
        """The functions' code."""
        with self._machine("reader") as machine:
            machine.start(self.state)
            with machine.monitor("restoring") as monitor:
                machine.load(monitor)
            gdb = Gdb(machine.directory / "gdb")
            return {symbol: gdb.read(symbol.address, symbol.size) for symbol in symbols}

    @contextmanager
    def _machine(self, name: str, ranges: tuple[Symbol, ...] = ()) -> Iterator[Watched]:
        directory = self.directory / name
        directory.mkdir()
        try:
            with Watched(self.kernel.vmlinuz, self._initrd, kernel_parameters(self.kernel), directory, "virtual", "tcg") as machine:
                machine.ranges = ranges
                yield machine
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def run(self, conversation: Conversation, index: int, within: float = LONGEST) -> Seen:
        """One test. Raises Gone."""
        began = time.monotonic()
        outcome, message, measurements = conversation.ask("run", index, within)
        return Seen(outcome, message, tuple(measurements), time.monotonic() - began)
