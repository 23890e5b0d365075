"""ELF files of x86-64, as far as a kernel and its modules need: sections, symbols and relocations (elf(5)).

The tables are unpacked whole: a kernel's modules have some million entries.
"""
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

ALLOCATED, EXECUTABLE = 2, 4                # sh_flags
SYMTAB, RELA, NOBITS = 2, 4, 8              # sh_type
UNDEFINED, FIRST_RESERVED = 0, 0xFF00       # st_shndx
OBJECT, FUNCTION, SECTION = 1, 2, 3         # st_info & 15
_FILE, _SECTION, _SYMBOL, _RELA = struct.Struct("<40xQ10x3H"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ"), struct.Struct("<QQq")


class NoElf(Exception):
    """The file is no ELF file of x86-64, or damaged."""


@dataclass(frozen=True)
class Section:
    """`data` is empty for one without bytes in the file; `link` and `info` are numbers of sections."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    data: memoryview


class ElfSymbol(NamedTuple):
    name: str
    kind: int
    section: int
    value: int
    size: int


class Relocation(NamedTuple):
    """At `offset` of its section, to symbol number `symbol`."""

    offset: int
    kind: int
    symbol: int
    addend: int


class Elf:
    """Raises NoElf."""

    def __init__(self, data: bytes) -> None:
        try:
            if data[:6] != b"\x7fELF\x02\x01" or data[18:20] != b"\x3e\0":
                raise NoElf("no ELF file of x86-64")
            table, size, count, names = _FILE.unpack_from(data)
            if size != _SECTION.size:
                raise NoElf("its section headers have another size")
            raw = [_SECTION.unpack_from(data, table + number * size) for number in range(count)]
            whole = memoryview(data)
            text = raw[names]
            self.sections = []
            for name, kind, flags, address, offset, length, link, info, align, _entry in raw:
                if kind != NOBITS and offset + length > len(data):
                    raise NoElf("it is truncated")
                inside = whole[offset:offset + length] if kind != NOBITS else whole[:0]
                called = _string(data, text[4] + name)
                self.sections.append(Section(called, kind, flags, address, offset, length, link, info, align, inside))
        except (struct.error, IndexError, ValueError):
            raise NoElf("its headers are damaged") from None

    def symbols(self) -> list[ElfSymbol]:
        """All of the symbol table, in its order; none without one.  Raises NoElf."""
        table = next((each for each in self.sections if each.kind == SYMTAB), None)
        if table is None:
            return []
        try:
            names = bytes(self.sections[table.link].data)
            return [ElfSymbol(_string(names, name), info & 15, section, value, size)
                    for name, info, _other, section, value, size in _SYMBOL.iter_unpack(table.data)]
        except (struct.error, IndexError, ValueError):
            raise NoElf("its symbol table is damaged") from None

    def relocations(self, section: int) -> Iterator[Relocation]:
        """Those of a section, by its number.  Raises NoElf."""
        for each in self.sections:
            if each.kind == RELA and each.info == section:
                try:
                    for offset, info, addend in _RELA.iter_unpack(each.data):
                        yield Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend)
                except struct.error:
                    raise NoElf("its relocations are damaged") from None


def _string(data: bytes, at: int) -> str:
    return data[at:data.index(b"\0", at)].decode(errors="replace")
