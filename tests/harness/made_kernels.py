"""Small kernels and modules made byte by byte, as far as a comparison of their code reads them."""
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TEXT, RODATA, DATA = 0xFFFFFFFF81000000, 0xFFFFFFFF82000000, 0xFFFFFFFF83000000
ENDBR, RET = b"\xf3\x0f\x1e\xfa", b"\xc3"
FILLERS = 300                               # symbols: a table of a few has no second marker
BEHIND, BEFORE, PLACED = "behind", "before", "placed"       # where kallsyms has the addresses: since 6.4, up to 6.3, since 7.1
COMPILER = "gcc-12 (Debian 12.2.0-14) 12.2.0"


@dataclass
class Made:
    """A function: its code is bytes and names; a name becomes the 4 bytes of what is at it relative to the next instruction. `warns` is
    the file that its BUG() names."""

    name: str
    parts: Sequence[bytes | str]
    warns: str = ""

    def size(self) -> int:
        return sum(4 if isinstance(part, str) else len(part) for part in self.parts)


def call(name: str) -> list[bytes | str]:
    return [b"\xe8", name]


def load(name: str) -> list[bytes | str]:
    """mov eax, [rip + name]"""
    return [b"\x8b\x05", name]


def text_of(name: str) -> list[bytes | str]:
    """lea rdi, [rip + name]"""
    return [b"\x48\x8d\x3d", name]


def function(name: str, *parts: bytes | str | Sequence[bytes | str], warns: str = "") -> Made:
    flat: list[bytes | str] = [ENDBR]
    for part in parts:
        flat += [part] if isinstance(part, bytes | str) else part
    return Made(name, [*flat, RET], warns)


@dataclass
class MadeKernel:
    """`variables` are sizes by name, `strings` constants by name that kallsyms does not list; `percpu` are offsets by name."""

    functions: Sequence[Made]
    variables: Mapping[str, int] = field(default_factory=dict)
    strings: Mapping[str, str] = field(default_factory=dict)
    percpu: Mapping[str, int] = field(default_factory=dict)
    form: str = BEHIND
    compiler: str = COMPILER
    release: str = "6.12.1-made"

    def vmlinux(self) -> bytes:
        places: dict[str, int] = {}
        at = TEXT
        for each in self.functions:
            places[each.name] = at
            at += -(-each.size() // 16) * 16
        symbols = [(address, "T", name) for name, address in places.items()]
        end = DATA
        for name, size in self.variables.items():
            places[name] = end
            symbols.append((end, "D", name))
            end += size
        rodata = bytearray(f"Linux version {self.release} (me@here) ({self.compiler}, GNU ld 2.40) #1 SMP\0".encode())
        for name, text in self.strings.items():
            places[name] = RODATA + len(rodata)
            rodata += text.encode() + b"\0"
        text = linked(self.functions, places)
        bugs, names = bytearray(), bytearray()
        table = RODATA + 0x100000
        for each in self.functions:
            if each.warns:
                place, there = table + len(bugs), table + 0x10000 + len(names)
                bugs += struct.pack("<iiHH", places[each.name] + 4 - place, there - place - 4, 1, 0)
                names += each.warns.encode() + b"\0"
        symbols += [(DATA + 0x10000 + number, "D", f"filler_{'x' * (number * number % 23)}_{number}") for number in range(FILLERS)]
        symbols += [(offset, "A", name) for name, offset in self.percpu.items()]
        rodata += bytes(-len(rodata) % 8)
        rodata += kallsyms(sorted(symbols), self.form, RODATA + len(rodata))
        sections = [(".text", TEXT, 6, text), (".rodata", RODATA, 2, bytes(rodata)), ("__bug_table", table, 3, bytes(bugs)),
                    (".names", table + 0x10000, 2, bytes(names)), (".data", DATA, 3, bytes(0x20000))]
        if self.percpu:
            sections.append((".data..percpu", 0, 3, bytes(0x20000)))
        return elf([Part(name, 1, flags, address, data) for name, address, flags, data in sections])

    def image(self, path: Path) -> Path:
        """A bzImage, compressed by gzip."""
        packer = zlib.compressobj(1, wbits=31)
        payload = packer.compress(self.vmlinux()) + packer.flush()
        header = bytearray(0x400)
        header[0x1F1] = 1
        header[0x202:0x206] = b"HdrS"
        version = f"{self.release} (me@here) #1 SMP".encode() + b"\0"
        header[0x300:0x300 + len(version)] = version
        struct.pack_into("<H", header, 0x20E, 0x100)
        body = payload + bytes(-len(payload) % 16)
        struct.pack_into("<I", header, 0x1F4, len(body) // 16)
        struct.pack_into("<II", header, 0x248, 0, len(payload))
        path.write_bytes(bytes(header) + body)
        return path


def linked(functions: Iterable[Made], places: Mapping[str, int]) -> bytes:
    text = bytearray()
    for each in functions:
        for part in each.parts:
            text += struct.pack("<i", places[part] - TEXT - len(text) - 4) if isinstance(part, str) else part
        text += b"\xcc" * (-len(text) % 16)
    return bytes(text)


def kallsyms(symbols: Sequence[tuple[int, str, str]], form: str, address: int) -> bytes:
    """The table of scripts/kallsyms.c; each token is one character. It begins at `address`."""
    names, markers = bytearray(), []
    for number, (_address, kind, name) in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(names))
        word = kind.encode() + name.encode()
        names += bytes([len(word)]) + word
    tokens = [bytes([number]) if 32 < number < 127 else b"??" for number in range(256)]
    base = TEXT
    offsets = struct.pack(f"<{len(symbols)}i", *(each if each < TEXT else base - 1 - each for each, _kind, _name in symbols))
    number = aligned(struct.pack("<I", len(symbols)))
    parts = [number, aligned(bytes(names)), aligned(struct.pack(f"<{len(markers)}I", *markers)),
             aligned(b"".join(token + b"\0" for token in tokens))]
    index = [sum(len(token) + 1 for token in tokens[:each]) for each in range(256)]
    parts.append(struct.pack("<256H", *index))
    relative = struct.pack("<Q", base)
    if form == BEFORE:
        return b"".join([aligned(offsets), relative, *parts])
    there = address + sum(map(len, parts))
    if form == PLACED:
        return b"".join([*parts, struct.pack(f"<{len(symbols)}i", *(each - there - 4 * at for at, (each, *_) in enumerate(symbols)))])
    return b"".join([*parts, aligned(offsets), relative])


def aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


@dataclass
class Part:
    """A section of an ELF file."""

    name: str
    kind: int
    flags: int
    address: int
    data: bytes
    link: int = 0
    info: int = 0


def elf(parts: Sequence[Part]) -> bytes:
    parts = [Part("", 0, 0, 0, b""), *parts, Part(".shstrtab", 3, 0, 0, b"")]
    names = bytearray()
    where = []
    for part in parts:
        where.append(len(names))
        names += part.name.encode() + b"\0"
    parts[-1].data = bytes(names)
    body, headers = bytearray(64), bytearray()
    for name, part in zip(where, parts, strict=True):
        body += bytes(-len(body) % 16)
        headers += struct.pack("<IIQQQQIIQQ", name, part.kind, part.flags, part.address, len(body), len(part.data), part.link, part.info,
                               16, 0)
        body += part.data
    body += bytes(-len(body) % 16)
    body[:64] = struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 1, 62, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(parts),
                            len(parts) - 1)
    return bytes(body) + bytes(headers)


def module(functions: Sequence[Made], strings: Mapping[str, str] | None = None) -> bytes:
    """A module: all names are relocations, those that it does not define are the kernel's."""
    text, relocations, defined = bytearray(), [], {}
    for each in functions:
        defined[each.name] = len(text)
        for part in each.parts:
            if isinstance(part, str):
                relocations.append((len(text), part))
                text += bytes(4)
            else:
                text += part
        text += b"\xcc" * (-len(text) % 16)
    constants, at = bytearray(), {}
    for name, words in (strings or {}).items():
        at[name] = len(constants)
        constants += words.encode() + b"\0"
    names = [*defined, *sorted({name for _place, name in relocations} - defined.keys() - at.keys())]
    table, words = bytearray(24), bytearray(b"\0")
    table += struct.pack("<IBBHQQ", 0, 3, 0, 2, 0, 0)           # the section of constants
    for name in names:
        section = 1 if name in defined else 0
        table += struct.pack("<IBBHQQ", len(words), 0x12 if section else 0x10, 0, section, defined.get(name, 0), 0)
        words += name.encode() + b"\0"
    entries = b"".join(
        struct.pack("<QQq", place, 1 << 32 | 2, at[name] - 4) if name in at else
        struct.pack("<QQq", place, names.index(name) + 2 << 32 | 4, -4) for place, name in relocations)
    return elf([Part(".text", 1, 6, 0, bytes(text)), Part(".rodata.str1.1", 1, 2, 0, bytes(constants)),
                Part(".rela.text", 4, 0, 0, entries, 4, 1), Part(".symtab", 2, 0, 0, bytes(table), 5, 2),
                Part(".strtab", 3, 0, 0, bytes(words))])
