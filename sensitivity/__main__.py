"""`./kdrift sensitivity`: break the kernel in one place at a time, and count how often the tests notice.

The guest's code is changed in memory, one instruction for each mutant, and those tests run that execute the instruction. A mutant is
killed when a test has another outcome, a measurement that moved beyond its tolerance, or no end; otherwise it survived. What no
test executes is not reached. Exit status: 0; 2 usage; 3 when the machine could not be used; 130 interrupted.
"""
import argparse
import hashlib
import os
import sys
import tempfile
import threading
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kernels.cache import Cache
from kernels.errors import CacheError, FetchError, SpecError
from kernels.extract import Kernel
from kernels.image import ImageError
from kernels.payload import PROJECT
from kernels.spec import resolve
from kernels.vm import VMError
from sensitivity.gdb import GdbError
from sensitivity.machine import Bench, Gone, Seen
from sensitivity.mutants import Mutant, blocks, mutants
from sensitivity.page import write_page
from sensitivity.score import Ledger, Verdict, difference, scores

GUARDS = Path(__file__).with_name("guards.toml")
USAGE, LOST, INTERRUPTED = 2, 3, 130
SLOWEST = 8.0                               # seconds of wall time of a test beyond which no mutant is tried with it
console = Console(highlight=False)


def main(arguments: list[str]) -> int:
    guards = {family: table["functions"] for family, table in tomllib.loads(GUARDS.read_text()).items()}
    options = _options(arguments, guards)
    wanted = options.functions or [name for family in options.families or guards for name in guards[family]]
    try:
        with Cache() as cache:
            kernel = resolve(options.kernel, cache, offline=options.offline, mirror=options.mirror)
        options.report.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="kdrift-", ignore_cleanup_errors=True) as directory:
            selection = [f"tests/{family}" for family in options.families or guards] + (["-k", options.expression] if options.expression else [])
            study = Study(Bench(kernel, Path(directory), selection), guards, options)
            verdicts = study.run(wanted)
    except SpecError as error:
        return _refuse(str(error), USAGE)
    except (FetchError, CacheError, ImageError, VMError, GdbError, Gone, OSError) as error:
        return _refuse(str(error), LOST)
    except KeyboardInterrupt:
        return INTERRUPTED
    for line in scores(verdicts):
        console.print(str(line), markup=False)
    write_page(options.report, kernel, verdicts)
    console.print(f"survivors and the rest: {options.report}/sensitivity.html", markup=False)
    return 0


def _options(arguments: list[str], guards: dict[str, list[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kdrift sensitivity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", metavar="FAMILY", nargs="*", help=f"of {', '.join(guards)}; all of them without one")
    parser.add_argument("-k", dest="expression", metavar="EXPR", help="only these tests, as pytest chooses them")
    parser.add_argument("--functions", metavar="NAME", nargs="+", help="other functions than those in guards.toml")
    parser.add_argument("--kernel", default="6.12", metavar="SPEC")
    parser.add_argument("--most", type=int, default=400, metavar="N", help="mutants to try, spread evenly (default: 400)")
    parser.add_argument("--slots", type=int, default=os.cpu_count(), metavar="N", help="machines at a time (default: one per core)")
    parser.add_argument("--report", type=Path, default=Path("sensitivity-report"), metavar="DIR",
                        help="where the results go; a run that was broken off goes on from there")
    parser.add_argument("--offline", action="store_true", help="use only what the cache holds")
    parser.add_argument("--mirror", metavar="URI")
    options = parser.parse_args(arguments)
    if unknown := set(options.families) - guards.keys():
        parser.error(f"no family {min(unknown)}: there are {', '.join(guards)}")
    return options


def _refuse(why: str, status: int) -> int:
    print(f"kdrift: {why.splitlines()[0]}", file=sys.stderr)
    return status


class Study:
    """All mutants of some functions against all tests of a bench."""

    def __init__(self, bench: Bench, guards: dict[str, list[str]], options: argparse.Namespace) -> None:
        self.bench, self.guards, self.options = bench, guards, options

    def run(self, names: list[str]) -> list[Verdict]:
        with console.status("booting, collecting, and running everything once"):
            symbols, addresses = self.bench.prepare(names)
        code = self.bench.read(symbols)
        with console.status("running everything twice, unchanged, and once more to see what is executed"):
            with ThreadPoolExecutor(min(2, self.options.slots)) as pool:
                first, second = pool.map(lambda _: self.whole(), range(2))
            self.base = {index: seen for index, seen in first.items() if not difference(seen, second[index]) and seen.wall_s < SLOWEST}
            self.reached = self.coverage({symbol: blocks(symbol, code[symbol]) for symbol in symbols})
        found = [mutant for symbol in symbols for mutant in mutants(symbol, code[symbol], addresses)]
        ledger = Ledger(self.options.report / "mutants.jsonl", self.key())
        for mutant in found:
            if not self.reached.get(mutant.address) and mutant.id not in ledger.verdicts:
                ledger.add(self.verdict(mutant, "not reached"))
        chosen = spread([mutant for mutant in found if self.reached.get(mutant.address)], self.options.most)
        console.print(f"{len(self.base)} of {len(self.bench.tests)} tests are used, the others are slow or not the same twice; {len(found)} mutants in "
                      f"{len(symbols)} functions, {len(chosen)} of those that a test reaches are tried")
        self.try_all([mutant for mutant in chosen if mutant.id not in ledger.verdicts], ledger)
        wanted = {mutant.id for mutant in found}
        return [verdict for name, verdict in ledger.verdicts.items() if name in wanted]

    def key(self) -> str:
        """Verdicts are of one kernel and one suite."""
        kernel: Kernel = self.bench.kernel
        digest = hashlib.sha256(repr((kernel.key, self.bench.arguments, self.bench.tests)).encode())
        for file in sorted(path for folder in ("tests", "netns", "fixtures") for path in (PROJECT / folder).rglob("*.py")):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def whole(self) -> dict[int, Seen]:
        """Every test in one machine, unchanged."""
        with self.bench.restored() as (_machine, conversation):
            return {index: self.bench.run(conversation, index, within=120) for index in range(len(self.bench.tests))}

    def coverage(self, starts: dict) -> dict[int, list[int]]:
        """By address, the tests that execute it, quickest first."""
        executed_with = {address: rest for each in starts.values() for address, rest in each.items()}
        reached: dict[int, set[int]] = {}
        with self.bench.restored(ranges=tuple(starts)) as (machine, conversation):
            position = 0
            for index in range(len(self.bench.tests)):
                self.bench.run(conversation, index, within=600)
                with machine.blocks.open("rb") as log:
                    log.seek(position)
                    data = log.read()
                    position += len(data)
                for line in set(data.split(b"\n")):
                    # Trace 0: 0x7f... [00000000/ffffffff81aef240/00c0b2b3/ff010000] tcp_keepalive_timer
                    if b"[" in line and line.count(b"/") >= 3:
                        for address in executed_with.get(int(line.partition(b"[")[2].split(b"/")[1], 16), ()):
                            reached.setdefault(address, set()).add(index)
        quickest = sorted(self.base, key=lambda index: self.base[index].wall_s)
        return {address: [index for index in quickest if index in tests] for address, tests in reached.items()}

    def try_all(self, chosen: Sequence[Mutant], ledger: Ledger) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        lock = threading.Lock()
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("mutants", total=len(chosen))

            def one(mutant: Mutant) -> None:
                verdict = self.try_one(mutant)
                with lock:
                    ledger.add(verdict)
                    progress.advance(task)

            with ThreadPoolExecutor(self.options.slots) as pool:
                for _ in pool.map(one, chosen):
                    pass

    def try_one(self, mutant: Mutant) -> Verdict:
        ran = 0
        with self.bench.restored(mutant) as (_machine, conversation):
            for index in self.reached[mutant.address]:
                ran += 1
                try:
                    how = difference(self.base[index], self.bench.run(conversation, index))
                except Gone as gone:
                    how = f"the machine is gone: {gone}"
                if how:
                    return self.verdict(mutant, "killed", self.bench.tests[index], how, ran)
        return self.verdict(mutant, "survived", tests=ran)

    def verdict(self, mutant: Mutant, outcome: str, by: str = "", how: str = "", tests: int = 0) -> Verdict:
        base = mutant.function.split(".")[0]
        families = tuple(family for family, names in self.guards.items() if base in names)
        return Verdict(mutant.id, mutant.function, families, mutant.text, outcome, by, how, tests)


def spread(found: list[Mutant], most: int) -> list[Mutant]:
    """At most so many, in turn from each function, evenly over its length; the same ones each time."""
    by_function: dict[str, list[Mutant]] = {}
    for mutant in found:
        by_function.setdefault(mutant.function, []).append(mutant)
    queues = [sorted(each, key=lambda mutant: hashlib.sha256(mutant.id.encode()).digest()) for each in by_function.values()]
    chosen: list[Mutant] = []
    while len(chosen) < most and any(queues):
        chosen += [queue.pop() for queue in queues if queue][:most - len(chosen)]
    return chosen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
