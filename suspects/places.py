"""Which source file a function that is built in comes from, as far as the image tells.

The addresses of all functions follow the order in which files are linked, and CONFIG_DEBUG_BUGVERBOSE keeps for each WARN() and BUG() the
file that has it (struct bug_entry, include/asm-generic/bug.h). So a function between two warnings of one file is of that file, and one
between two files of a directory is of that directory. What stands between two directories is of either.
"""
import os
import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from suspects.code import Area, Code, Function, source_name

TABLE = "__bug_table"
SIZES = (12, 16)                            # bytes of an entry, up to 6.18 and since; it begins with the places of the code and the name
NAME = 256                                  # bytes


def source_files(code: Code) -> dict[int, str]:
    """By a function's address its file, or as much of the path as is sure: "net/ipv4/tcp.c", "net/ipv4/", "". Empty without the table.

    Cold parts are not in it: they stand apart.
    """
    main = [each for each in code.functions if not each.name.endswith(".cold")]
    sections: dict[int, list[Function]] = {}
    for function in main:
        area = code.area(function.address)
        assert area
        sections.setdefault(area.start, []).append(function)
    known = _known(code, main)
    found: dict[int, str] = {}
    for functions in sections.values() if known else ():
        found |= _between(functions, known)
    return found


def _between(functions: Sequence[Function], known: Mapping[int, str]) -> dict[int, str]:
    """The functions of one section, by address; `known` has the files of some."""
    anchors = [number for number, function in enumerate(functions) if function.address in known]
    files = [known[functions[number].address] for number in anchors]
    found = {}
    for number, function in enumerate(functions):
        after = bisect_left(anchors, number)
        before = after if after < len(anchors) and anchors[after] == number else after - 1
        if before < 0 or after == len(anchors):
            found[function.address] = ""
        else:
            found[function.address] = files[after] if files[before] == files[after] else _common(files[before], files[after])
    return found


def _common(one: str, other: str) -> str:
    """What two paths begin with: directories, and of files of one directory also the name, as in kernel/audit*."""
    if os.path.dirname(one) == os.path.dirname(other):
        return os.path.commonprefix([one, other])
    common = os.path.commonpath([os.path.dirname(one), os.path.dirname(other)])
    return f"{common}/" if common else ""


def _known(code: Code, functions: Sequence[Function]) -> dict[int, str]:
    """The files of functions that warn, by address. A warning in a cold part counts for the function, if the name is not ambiguous."""
    by_name: dict[str, list[int]] = {}
    for function in functions:
        by_name.setdefault(source_name(function.name), []).append(function.address)
    pieces = sorted(code.functions, key=lambda each: each.address)
    starts = [each.address for each in pieces]
    found: dict[int, set[str]] = {}
    for address, file in _warnings(code):
        number = bisect_left(starts, address + 1) - 1
        if number >= 0 and file.endswith(".c"):
            owners = by_name.get(source_name(pieces[number].name), [])
            if pieces[number].address in owners or len(owners) == 1:
                found.setdefault(pieces[number].address if pieces[number].address in owners else owners[0], set()).add(file)
    return {address: min(files) for address, files in found.items() if len(files) == 1}


def _warnings(code: Code) -> list[tuple[int, str]]:
    """The address and the file of each WARN() and BUG()."""
    table = next((area for area in code.areas if area.name == TABLE), None)
    return next((found for size in SIZES if table and (found := _entries(code, table, size))), [])


def _entries(code: Code, table: Area, size: int) -> list[tuple[int, str]]:
    """Nothing if an entry is none: the size is another."""
    found = []
    for place in range(0, len(table.data) - size + 1, size):
        (where,), (name,) = struct.unpack_from("<i", table.data, place), struct.unpack_from("<i", table.data, place + size - 8)
        address = table.start + place + where
        file = _text(code, table.start + place + size - 8 + name)
        area = code.area(address)
        if not area or not area.executable or not file:
            return []
        found.append((address, file))
    return found


def _text(code: Code, address: int) -> str:
    area = code.area(address)
    if not area:
        return ""
    start = address - area.start
    text = area.data[start:start + NAME].partition(b"\0")[0].decode(errors="replace")
    return os.path.normpath(text).removeprefix("../") if text.isprintable() and "." in text else ""
