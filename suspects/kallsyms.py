"""The symbols of an uncompressed kernel that is not running: the table behind /proc/kallsyms.

Source: scripts/kallsyms.c, which writes the table, and kernel/kallsyms.c, which reads it. Up to 6.3 the addresses stand before the names,
in later kernels behind the tokens. Names are compressed: each byte of a name is the number of a token.
"""
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

# Digits are tokens of their own, numbered by their character.
DIGITS = re.compile(b"\0" + b"\0".join(b"%d" % digit for digit in range(10)) + b"\0")
TOKENS = 256
PER_MARKER = 256                            # names; a marker says where each 256th begins
LONGEST_NAME = 520                          # bytes, compressed (KSYM_NAME_LEN is 512)
LARGEST_SEQUENCE = 1 << 20                  # bytes
KERNEL = 0xFFFFFFFF80000000                 # it is linked above (Documentation/arch/x86/x86_64/mm.rst)


class NoSymbols(Exception):
    """The kernel has no table of symbols, or none that can be read."""


class Kallsym(NamedTuple):
    """A symbol; `kind` is nm(1)'s letter."""

    address: int
    kind: str
    name: str


def read_kallsyms(image: bytes, address_of: Callable[[int], int]) -> list[Kallsym]:
    """All symbols of the kernel in `image`, an uncompressed vmlinux. `address_of` says where a byte of the file is when it runs.

    Raises NoSymbols.
    """
    for match in DIGITS.finditer(image):
        tokens, begin, end = _tokens(image, match.start() + 1)
        for places in _names(image, begin) if tokens else ():
            if addresses := _after(image, end, len(places), address_of) or _before(image, places[0], len(places)):
                names = [_expand(image, at, tokens) for at in places]
                return [Kallsym(address, name[:1], name[1:]) for address, name in zip(addresses, names, strict=True)]
    raise NoSymbols("the kernel's image has no kallsyms, or in a form that is not known")


def _tokens(image: bytes, zero: int) -> tuple[list[bytes], int, int]:
    """The tokens, of which "0" is at `zero`; where their table begins, and where their index ends. No tokens if this is no such table."""
    begin = zero - 1
    for _ in range(ord("0")):
        begin = image.rfind(b"\0", 0, begin)
    begin += 1
    at, tokens, places = begin, [], []
    for _ in range(TOKENS):
        end = image.find(b"\0", at)
        tokens.append(image[at:end])
        places.append(at - begin)
        at = end + 1
    index = struct.pack(f"<{TOKENS}H", *(place & 0xFFFF for place in places))
    for there in (_aligned(at, 4), _aligned(at, 8)):
        if begin > 0 and image[there:there + len(index)] == index:
            return tokens, begin, there + len(index)
    return [], 0, 0


def _names(image: bytes, tokens: int) -> Iterator[list[int]]:
    """Where each name may begin, its length first. The markers follow the names; then come the tokens, in 6.1 to 6.3 behind 3 bytes for
    each name."""
    for end in range(tokens & ~3, max(8, tokens - LARGEST_SEQUENCE), -4):
        at = end - 4
        while at > 4 and 0 < _word(image, at) - _word(image, at - 4) < PER_MARKER * LONGEST_NAME:
            at -= 4
        if at < end - 4 and not _word(image, at):
            markers = struct.unpack_from(f"<{(end - at) // 4}I", image, at)
            for first in range((at - markers[-1]) & ~3, max(0, at - markers[-1] - PER_MARKER * LONGEST_NAME), -4):
                start = _walk(image, first, at, PER_MARKER + 1)[::PER_MARKER]
                if tuple(each - first for each in start) == markers[:2]:
                    found = _walk(image, first, at)
                    if tuple(each - first for each in found[::PER_MARKER]) == markers:
                        yield found


def _walk(image: bytes, place: int, end: int, most: int = 1 << 32) -> list[int]:
    """Where each name before `end` begins, at most so many; none is empty."""
    found: list[int] = []
    while place < end and len(found) < most and (length := image[place]):
        found.append(place)
        place += 1 + length if length < 0x80 else 2 + (length & 0x7F | image[place + 1] << 7)
    return found if place <= end else []


def _expand(image: bytes, place: int, tokens: Sequence[bytes]) -> str:
    length = image[place]
    place += 1
    if length >= 0x80:                      # ULEB128, since 6.1
        length = length & 0x7F | image[place] << 7
        place += 1
    return b"".join([tokens[number] for number in image[place:place + length]]).decode(errors="replace")


def _after(image: bytes, end: int, number: int, address_of: Callable[[int], int]) -> list[int]:
    """The addresses where they stand behind the tokens."""
    for place in dict.fromkeys((_aligned(end, 4), _aligned(end, 8))):
        if found := _based(image, place, number, _aligned(place + 4 * number, 8)):
            return found
        if place + 4 * number <= len(image):        # each relative to its own place, since 7.1
            offsets = struct.unpack_from(f"<{number}i", image, place)
            found = [at + each for at, each in zip(range(address_of(place), 1 << 64, 4), offsets, strict=False)]
            if found == sorted(found):
                return found
    return []


def _before(image: bytes, names: int, number: int) -> list[int]:
    """The addresses where they stand before the names; their number is between."""
    base = names - 16
    return _based(image, base - _aligned(4 * number, 8), number, base)


def _based(image: bytes, place: int, number: int, base: int) -> list[int]:
    """From the offsets at `place` and the address at `base` that they are relative to; nothing if these are others."""
    if place < 0 or base < 0 or base + 8 > len(image):
        return []
    (start,) = struct.unpack_from("<Q", image, base)
    offsets = struct.unpack_from(f"<{number}i", image, place)
    # With CONFIG_KALLSYMS_ABSOLUTE_PERCPU, up to 6.14, a negative offset is relative, and others are addresses.
    found = [start - 1 - each if each < 0 else each for each in offsets] if min(offsets) < 0 else [start + each for each in offsets]
    return found if start >= KERNEL and max(found) < 1 << 64 else []


def _word(image: bytes, place: int) -> int:
    found: int = struct.unpack_from("<I", image, place)[0]
    return found


def _aligned(place: int, to: int) -> int:
    return -(-place // to) * to
