"""Record which functions tests execute, in a machine whose translations QEMU logs (see sensitivity.machine)."""
import shutil
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common.errors import FetchError
from common.threads import side_by_side
from kernels.extract import Kernel
from rerun.conversation import Gone
from sensitivity.gdb import GdbError
from sensitivity.machine import MutantBench
from sensitivity.mutants import Symbol
from suspects.code import source_name
from suspects.compare import SCOPE, FunctionName, built_in_functions, module_name, modules_of, read_image
from suspects.recorded import Recorded
from vm.image import ImageError
from vm.own import own_arguments, own_directories
from vm.qemu import VMError

LARGEST = 1 << 14                           # bytes of a function
LAST = 64                                   # bytes of the last function that has a name: its size is not known
TABLES = "--tables=all"


class NotRecorded(FetchError):
    """The machine could not be used; one line."""


def record_executed(kernel: Kernel, tests: Sequence[str], directory: Path, slots: int = 1, devices: Sequence[str] = (),
                    say: Callable[[str], None] = lambda line: None) -> Recorded:
    """What the tests execute of net/ and kernel/audit* on a kernel: from the cache, else recorded in machines below `directory`.

    Raises NotRecorded, CannotCompare.
    """
    known = Recorded(kernel)
    if not (missing := known.missing(tests)):
        return known
    say(f"{kernel.release}: recording what {len(missing)} test{'s' * (len(missing) != 1)} execute{'s' * (len(missing) == 1)}")
    bench = MutantBench(kernel, directory, directory / "machine", [TABLES, *own_arguments(own_directories(missing)), *missing], devices)
    try:
        listing, _seen = bench.warmed()
        functions = watched(listing, kernel)
        found = _covered(bench, functions, slots)
        known.add({bench.tests[index]: each for index, each in found.items()})
    except (VMError, ImageError, Gone, GdbError, FetchError, OSError) as error:
        raise NotRecorded(f"{kernel.release}: {str(error).partition(chr(10))[0]}") from None
    finally:
        bench.end()
        shutil.rmtree(directory / "machine", ignore_errors=True)
    return known


def _covered(bench: MutantBench, functions: Mapping[int, tuple[Symbol, FunctionName]],
             slots: int) -> dict[int, tuple[str, set[FunctionName]]]:
    """By test, its outcome and what it executed."""
    starts = sorted(functions)
    symbols = [functions[start][0] for start in starts]

    def part(tests: Sequence[int]) -> dict[int, tuple[str, set[FunctionName]]]:
        return {index: (seen.outcome, {functions[starts[bisect_right(starts, address) - 1]][1] for address in addresses})
                for index, seen, addresses in bench.coverage(symbols, tests, again=1)}

    everything = range(len(bench.tests))
    shares = [everything[number::slots] for number in range(min(slots, len(everything)))]
    return {index: each for _share, done in side_by_side(part, shares, slots, bench.end) for index, each in done.items()}


def watched(listing: str, kernel: Kernel) -> dict[int, tuple[Symbol, FunctionName]]:
    """By address, the functions of net/ and kernel/audit* in a guest's /proc/kallsyms. Its kernel is where it was linked (nokaslr)."""
    found = {address: (Symbol(name, address, min(size, LARGEST)), FunctionName("", name))
             for address, size, name in built_in_functions(read_image(kernel), SCOPE) if size}
    modules = {module_name(place) for place in modules_of(kernel, SCOPE)}
    table = []
    for line in listing.splitlines():
        address, kind, name, *owner = line.split()
        if owner:
            table.append((int(address, 16), kind, name, owner[0].strip("[]")))
    table.sort()
    for number, (start, kind, name, module) in enumerate(table):
        end = next((each[0] for each in table[number + 1:number + 40] if each[0] > start), start + LAST)
        if kind in "tTwW" and module in modules and not name.startswith(("__pfx_", "__cfi_")):
            found[start] = Symbol(name, start, min(end - start, LARGEST), module), FunctionName(module, source_name(name))
    return found
