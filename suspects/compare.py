"""What of two kernels' code differs, function by function."""
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import FetchError
from kernels.compressed import uncompressed, zstd
from kernels.extract import Kernel
from kernels.modules import contents, files
from suspects.code import Code, Function, kernel_code, module_code, source_name
from suspects.elf import NoElf
from suspects.kallsyms import NoSymbols
from suspects.normal import Instruction, Normal, is_same, shifts
from suspects.places import source_files

SCOPE = ("net/", "kernel/audit")
CHANGED, MOVED, NEW, GONE = "changed", "moved", "new", "gone"
SYSTEMATIC = 5                              # functions in which the same offset moved: a structure's layout changed
BANNER = re.compile(rb"Linux version [^\0\n]*?\(([^()]*(?:\([^()]*\)[^()]*)*)\) #")
LTO = re.compile(r"\.(llvm\.\d+|lto_priv\.\d+)$")


class CannotCompare(FetchError):
    """A kernel's code cannot be read, or a comparison would say nothing; one line."""


@dataclass(frozen=True, order=True)
class FunctionName:
    """A function as /proc/kallsyms shows it; `module` is empty for one that is built in."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} [{self.module}]" if self.module else self.name


@dataclass
class Difference:
    """`how` of each function that differs: changed; moved, if only the offsets of structures' fields did; new; or gone. `places` has the
    file of each, as far as it is known. `unread` names modules that could not be read."""

    how: dict[FunctionName, str] = field(default_factory=dict)
    places: dict[FunctionName, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def of(self, *how: str) -> list[FunctionName]:
        return sorted(name for name, each in self.how.items() if each in how)


@dataclass(frozen=True)
class Image:
    """A kernel's image, read."""

    code: Code
    places: Mapping[int, str]
    compiler: str
    lto: bool


def read_image(kernel: Kernel) -> Image:
    """Raises CannotCompare."""
    try:
        data = uncompressed(kernel.vmlinuz)
        code = kernel_code(data)
    except (FetchError, NoElf, NoSymbols) as error:
        raise CannotCompare(f"{kernel.spec}: {error}") from None
    places = source_files(code)
    if not places:
        raise CannotCompare(f"{kernel.spec}: the image does not name its source files (CONFIG_DEBUG_BUGVERBOSE)")
    found = BANNER.search(data)
    compiler = found[1].decode(errors="replace").rpartition(") (")[2].partition(",")[0] if found else "unknown"
    return Image(code, places, compiler, any(LTO.search(each.name) for each in code.functions))


def compare_code(old: Kernel, new: Kernel, scope: Sequence[str] = SCOPE) -> Difference:
    """The functions of the scope, which are paths in the kernel's source, that differ.  Raises CannotCompare."""
    before, after = read_image(old), read_image(new)
    if before.compiler != after.compiler:
        raise CannotCompare(f"{old.release} and {new.release} come from two compilers, which says nothing of their source: "
                            f"{before.compiler} and {after.compiler}")
    if before.lto or after.lto:
        raise CannotCompare("a kernel is optimized when it is linked (LTO): its functions say nothing of its source")
    found, moved = Difference(), Moved()
    _compare_parts(_built_in(before, scope), _built_in(after, scope), Normal(before.code), Normal(after.code), "", found, moved)
    _compare_modules(old, new, scope, found, moved)
    for name in moved.systematic():
        found.how[name] = MOVED
    return found


class Moved:
    """Functions of which only offsets differ.  An offset that moved in many is that of a structure's field, whose layout has changed."""

    def __init__(self) -> None:
        self._found: dict[FunctionName, set[tuple[str, str]]] = {}

    def add(self, name: FunctionName, pairs: set[tuple[str, str]]) -> None:
        self._found[name] = pairs

    def systematic(self) -> list[FunctionName]:
        counts = Counter(pair for pairs in self._found.values() for pair in pairs)
        return [name for name, pairs in self._found.items() if all(counts[pair] >= SYSTEMATIC for pair in pairs)]


def _built_in(image: Image, scope: Sequence[str]) -> dict[str, tuple[str, list[Function]]]:
    """By name, the file and the pieces of each function in the scope."""
    inside: dict[str, tuple[str, list[Function]]] = {}
    outside = set()
    for each in image.code.functions:
        place = image.places.get(each.address)
        if place is not None and place.startswith(tuple(scope)):
            inside.setdefault(source_name(each.name), (place, []))[1].append(each)
        elif place is not None:
            outside.add(source_name(each.name))
    for each in image.code.functions:
        name = source_name(each.name)
        if each.address not in image.places and name in inside and name not in outside:
            inside[name][1].append(each)
    return inside


def _compare_parts(old: Mapping[str, tuple[str, list[Function]]], new: Mapping[str, tuple[str, list[Function]]], before: Normal,
                   after: Normal, module: str, found: Difference, moved: Moved) -> None:
    for name in sorted(old.keys() | new.keys()):
        key = FunctionName(module, name)
        found.places[key] = (new.get(name) or old[name])[0]
        if name not in new or name not in old:
            found.how[key] = GONE if name not in new else NEW
            continue
        pieces = [[side.form(piece) for piece in _in_order(each[name][1])] for side, each in ((before, old), (after, new))]
        if all(map(_equal, *pieces)) and len(pieces[0]) == len(pieces[1]):
            continue
        found.how[key] = CHANGED
        pairs = [shifts(*both) for both in zip(*pieces, strict=False)]
        if len(pieces[0]) == len(pieces[1]) and None not in pairs:
            moved.add(key, set().union(*(each for each in pairs if each)))


def _in_order(pieces: Iterable[Function]) -> list[Function]:
    """By suffix, then by address: two functions of one name keep their order, that of linking."""
    return sorted(pieces, key=lambda each: (each.name, each.address))


def _equal(one: Sequence[Instruction], other: Sequence[Instruction]) -> bool:
    return len(one) == len(other) and all(map(is_same, one, other))


def modules_of(kernel: Kernel, scope: Sequence[str]) -> dict[str, Path]:
    """The module files of the scope, by their place in the source without an ending: net/netfilter/nf_conncount."""
    if not kernel.modules:
        return {}
    found = {name.removeprefix("kernel/").partition(".ko")[0]: kernel.modules / name for name in files(kernel.modules)}
    return {place: path for place, path in found.items() if place.startswith(tuple(scope))}


def module_name(place: str) -> str:
    return place.rpartition("/")[2].replace("-", "_")


def _compare_modules(old: Kernel, new: Kernel, scope: Sequence[str], found: Difference, moved: Moved) -> None:
    before, after = modules_of(old, scope), modules_of(new, scope)
    for place in sorted(before.keys() | after.keys()):
        try:
            codes = [_module(each[place]) if place in each else Code([], [], []) for each in (before, after)]
        except (FetchError, NoElf) as error:
            found.unread.append(f"{place}: {error}")
            continue
        parts = []
        for code in codes:
            by_name: dict[str, tuple[str, list[Function]]] = {}
            for each in code.functions:
                by_name.setdefault(source_name(each.name), (place, []))[1].append(each)
            parts.append(by_name)
        if codes[0].is_same(codes[1]):
            found.places |= {FunctionName(module_name(place), name): place for name in parts[0]}
            continue
        _compare_parts(parts[0], parts[1], Normal(codes[0]), Normal(codes[1]), module_name(place), found, moved)


def _module(path: Path) -> Code:
    """Raises FetchError, NoElf."""
    return module_code(zstd(path.read_bytes()) if path.suffix == ".zst" else contents(path))


def built_in_functions(image: Image, scope: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """The address, the size and the name of each function of the scope."""
    for name, (_place, pieces) in _built_in(image, scope).items():
        for piece in pieces:
            yield piece.address, len(piece.code), name
