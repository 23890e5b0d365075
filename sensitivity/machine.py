"""The machine of rerun/, with a gdb port: one instruction of its kernel can be changed, and it reports what it executes."""
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from rerun.bench import Bench, Seen
from rerun.conversation import COLLECTED, Conversation
from sensitivity.gdb import Gdb
from sensitivity.mutants import Mutant, Symbol, read_symbols
from vm.forms import unpacked
from vm.machine import Machine
from vm.process import as_value
from vm.qemu import VMError

PADDING = 64                                # bytes between two functions


class Watched(Machine):
    """A machine with a gdb port, which can report what it executes of some functions.

    QEMU logs an instruction when it translates it, just before its first execution. Memory that is written is translated again, so the
    same bytes are written once more whenever a new account begins.  Logging each execution takes several times as long.
    """

    functions: Sequence[Symbol] = ()        # sorted by address
    again = 1 << 20                         # bytes of a function that are translated again; 1 shows only that it is entered
    _position = 0                           # in the log, read up to here

    def executed(self) -> set[int]:
        """The addresses of the instructions executed since the last call, or the start; the machine goes on."""
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
                # As they are now: the kernel patches its code for tracing and static branches.
                size = min(self.functions[number].size, self.again)
                gdb.write(starts[number], gdb.read(starts[number], size))
            gdb.close()
        return found

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop the machine for the block, and leave the processor to others. A machine that has ended is left alone."""
        self._tell("stop")
        yield
        self._tell("cont")

    def _tell(self, order: str) -> None:
        with suppress(VMError), self.monitor("holding the machine") as monitor:
            monitor.cmd(order)

    def ports(self) -> list[str]:
        words = [*super().ports(), "-gdb", f"unix:{as_value(self.directory)}/gdb,server=on,wait=off"]
        if self.functions:
            filters = ",".join(f"{start:#x}+{end - start:#x}" for start, end in ranges(self.functions))
            words += ["-d", "in_asm", "-dfilter", filters, "-D", f"{self.directory}/translated.log"]
        return words


def ranges(functions: Iterable[Symbol]) -> Iterator[tuple[int, int]]:
    """Where the functions begin and end, those together that follow each other: a word of a command line has at most 128 KiB."""
    start = end = 0
    for each in functions:
        if each.address > end + PADDING:
            if end:
                yield start, end
            start = each.address
        end = max(end, each.address + each.size)
    if end:
        yield start, end


class MutantBench(Bench[Watched]):
    """The saved machine in which all modules are loaded."""

    machine_class = Watched

    def study(self, names: list[str]) -> tuple[list[Symbol], dict[int, str], dict[int, Seen]]:
        """Prepare it. Returns the functions of these names, the names of all addresses, and what the tests did."""
        listing, first = self.warmed()
        found, addresses = read_symbols(listing, set(names))
        return found, addresses, first

    def warmed(self) -> tuple[str, dict[int, Seen]]:
        """Prepare it: run everything once, the last test first, so that all modules are loaded. Returns /proc/kallsyms, and what the
        tests did."""
        first: dict[int, Seen] = {}
        listing = b""

        def warm(conversation: Conversation) -> None:
            nonlocal listing
            backwards = list(reversed(range(len(self.tests))))
            conversation.ask("run", (backwards, 0))
            first.update(zip(backwards, self.results(conversation, backwards), strict=True))
            conversation.ask("symbols", None)
            listing = conversation.answer(COLLECTED)

        self.prepare(warm, modules_stay=True)
        return unpacked(listing).decode(errors="replace"), first

    def coverage(self, functions: Sequence[Symbol], tests: Sequence[int],
                 again: int = Watched.again) -> Iterator[tuple[int, Seen, set[int]]]:
        """Run these tests, by their index; what each did, and the addresses of the instructions that it executed. See Watched.again."""
        with self.mutated([], functions=functions) as (machine, conversation):
            machine.again = again
            next(self.results(conversation, []), None)
            machine.executed()
            for index in tests:
                conversation.ask("run", ([index], index))
                seen = next(self.results(conversation, [index]))
                yield index, seen, machine.executed()

    def mutated(self, tests: Sequence[int], mutant: Mutant | None = None, functions: Sequence[Symbol] = (),
                seed: int = 0) -> AbstractContextManager[tuple[Watched, Conversation]]:
        """As restored(), with one instruction changed. It can report what it executes of `functions`."""
        @contextmanager
        def changed(machine: Watched) -> Iterator[None]:
            gdb = Gdb(machine.directory / "gdb")
            if mutant:
                gdb.write(mutant.address, mutant.new)
            yield
            gdb.close()

        return self.restored(tests, seed, changed, functions=sorted(functions, key=lambda function: function.address))

    def read(self, symbols: list[Symbol]) -> dict[Symbol, bytes]:
        """The functions' code."""
        with self.machine("reader", self.state) as machine:
            machine.load()
            gdb = Gdb(machine.directory / "gdb")
            return {symbol: gdb.read(symbol.address, symbol.size) for symbol in symbols}
