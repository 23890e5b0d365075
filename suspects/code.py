"""A kernel's code, or a module's, at rest: its functions, and names for all addresses."""
import re
import struct
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from suspects.elf import ALLOCATED, EXECUTABLE, OBJECT, SECTION, UNDEFINED, Elf, NoElf, Section
from suspects.kallsyms import read_kallsyms

MODULES = 0xFFFFFFFFA0000000                # where modules are laid out (Documentation/arch/x86/x86_64/mm.rst)
_EXTERN = 0xFFFFFFFFF0000000                # and what they need of others
PERCPU = ".data..percpu"
_NOT_CODE = ("__pfx_", "__cfi_")            # padding before a function, for call thunks or kCFI
_FURTHEST = 1 << 12                         # bytes behind a symbol; what is further away is not its own
_UNIQUE = re.compile(r"(__UNIQUE_ID_[a-zA-Z_]*)\d.*")
_TEXT = re.compile(rb"[\x01\t\n\x20-\x7e]+\0")
# Relocations that are filled in: the size of the field, and whether it is relative (the psABI of x86-64, 4.4).
_FIELDS = {1: (8, False), 2: (4, True), 4: (4, True), 10: (4, False), 11: (4, False), 24: (8, True)}


def source_name(name: str) -> str:
    """The symbol's name in the source: without what the compiler adds to copies, parts and numbered objects."""
    if match := _UNIQUE.fullmatch(name):
        return match[1]
    return name.split(".")[0] or name


@dataclass(frozen=True)
class Function:
    """A piece of code that has a symbol; a function may have several, such as f, f.cold and f.part.0."""

    name: str
    address: int
    code: bytes


@dataclass(frozen=True)
class Area:
    """A section that is loaded; `data` has no bytes if it is zeroed."""

    name: str
    start: int
    end: int
    executable: bool
    data: bytes


class Code:
    """`symbols` are addresses and names, `functions` those that are functions."""

    def __init__(self, areas: Iterable[Area], symbols: Iterable[tuple[int, str]], functions: Iterable[tuple[int, str]]) -> None:
        # What is at 0 is reached through the segment register gs.
        self._percpu = next((area for area in areas if area.name == PERCPU and area.start < MODULES), None)
        self.areas = sorted((area for area in areas if area is not self._percpu and area.end > area.start), key=lambda area: area.start)
        self._starts = [area.start for area in self.areas]
        ordered = sorted(symbols)
        self._addresses, self._names = [address for address, _name in ordered], [name for _address, name in ordered]
        self.functions = list(self._cut(functions))

    def _cut(self, functions: Iterable[tuple[int, str]]) -> Iterable[Function]:
        for address, name in sorted(functions):
            area = self.area(address)
            if area and area.executable and not name.startswith(_NOT_CODE):
                number = bisect_right(self._addresses, address)
                end = min(self._addresses[number], area.end) if number < len(self._addresses) else area.end
                yield Function(name, address, area.data[address - area.start:end - area.start])

    def is_same(self, other: "Code") -> bool:
        """Whether all code, its constants and all names are the same, byte by byte and address by address."""
        def essence(code: Code) -> object:
            return [(area.start, area.data) for area in code.areas if area.executable or area.name.startswith(".rodata")]
        return self._addresses == other._addresses and self._names == other._names and essence(self) == essence(other)

    def area(self, address: int) -> Area | None:
        number = bisect_right(self._starts, address) - 1
        return self.areas[number] if number >= 0 and address < self.areas[number].end else None

    def name_of(self, address: int) -> str:
        """In words that another build shares: a symbol, perhaps with an offset, the text of a string, or else the section."""
        area = self.area(address)
        if not area:
            return ""
        nearest = self._nearest(address, area.start)
        if nearest and address == nearest[0] or area.executable and nearest:
            return _with_offset(nearest[1], address - nearest[0])
        at = address - area.start
        if text := _TEXT.match(area.data, at):
            return repr(text[0][:-1].decode())
        if nearest and address - nearest[0] < _FURTHEST:
            return _with_offset(nearest[1], address - nearest[0])
        return area.name

    def percpu_name(self, offset: int) -> str:
        """Of a variable that each processor has; "" if there is none at this offset."""
        if not self._percpu or not self._percpu.start <= offset < self._percpu.end:
            return ""
        nearest = self._nearest(offset, self._percpu.start)
        return _with_offset(nearest[1], offset - nearest[0]) if nearest else ""

    def _nearest(self, address: int, start: int) -> tuple[int, str] | None:
        number = bisect_right(self._addresses, address) - 1
        if number < 0 or self._addresses[number] < start:
            return None
        return self._addresses[number], source_name(self._names[number])


def _with_offset(name: str, offset: int) -> str:
    return f"{name}+{offset:#x}" if offset else name


def kernel_code(image: bytes) -> Code:
    """Of an uncompressed kernel.  Raises NoElf, NoSymbols."""
    elf = Elf(image)
    loaded = [each for each in elf.sections if each.flags & ALLOCATED]

    def address_of(place: int) -> int:
        return next((each.address + place - each.offset for each in loaded if each.offset <= place < each.offset + len(each.data)), 0)

    table = read_kallsyms(image, address_of)
    areas = [Area(each.name, each.address, each.address + each.size, bool(each.flags & EXECUTABLE), bytes(each.data)) for each in loaded]
    return Code(areas, [(each.address, each.name) for each in table],
                [(each.address, each.name) for each in table if each.kind in "tTwW"])


def module_code(data: bytes) -> Code:
    """Of a module's file, laid out and linked as the kernel would, at addresses of our own.  Raises NoElf."""
    elf = Elf(data)
    symbols = elf.symbols()
    base, at, areas = {}, MODULES, []
    contents: dict[int, bytearray] = {}
    loaded = [number for number, each in enumerate(elf.sections) if each.flags & ALLOCATED]
    for number in sorted(loaded, key=lambda number: _rank(elf.sections[number])):
        each = elf.sections[number]
        at += -at % max(each.align, 16)
        base[number] = at
        contents[number] = bytearray(each.data)
        at += each.size
    placed = []                             # the address of each symbol
    for number, symbol in enumerate(symbols):
        placed.append(_EXTERN + 16 * number if symbol.section == UNDEFINED else base.get(symbol.section, 0) + symbol.value)
    for number, each in enumerate(elf.sections):
        if number in base:
            if each.flags & EXECUTABLE:
                _link(elf, number, base[number], placed, contents[number])
            areas.append(Area(each.name, base[number], base[number] + each.size, bool(each.flags & EXECUTABLE), bytes(contents[number])))
    areas.append(Area("extern", _EXTERN, _EXTERN + 16 * len(symbols), False, b""))
    named = [(address, symbol.name, symbol.section, symbol.kind) for address, symbol in zip(placed, symbols, strict=True)
             if symbol.name and symbol.kind != SECTION and (symbol.section == UNDEFINED or symbol.section in base)]
    return Code(areas, [(address, name) for address, name, _section, _kind in named],
                [(address, name) for address, name, section, kind in named if section != UNDEFINED and kind != OBJECT])


def _rank(section: Section) -> int:
    """Code first and its constants next, so that their addresses do not depend on what follows."""
    return 0 if section.flags & EXECUTABLE else 1 if section.name.startswith(".rodata") else 2


def _link(elf: Elf, section: int, start: int, placed: list[int], data: bytearray) -> None:
    """Fill in the section's relocations.  Raises NoElf."""
    for each in elf.relocations(section):
        if field := _FIELDS.get(each.kind):
            size, relative = field
            if each.symbol >= len(placed) or each.offset + size > len(data):
                raise NoElf("a relocation is of no symbol or no place")
            value = placed[each.symbol] + each.addend - (start + each.offset if relative else 0)
            struct.pack_into("<I" if size == 4 else "<Q", data, each.offset, value & (1 << 8 * size) - 1)
