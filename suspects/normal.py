"""A function's code in a form that does not depend on where the function, and what it uses, is linked.

A target of a jump within the function is an offset, any other address a name; padding is left out.
"""
import re
from collections.abc import Sequence
from typing import NamedTuple

from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from suspects.code import Code, Function

_ADDRESS = re.compile(r"0xffffffff[89a-f][0-9a-f]{7}")
_NEGATIVE = re.compile(r"- ?(0x[0-9a-f]{8})\b")     # an address as a signed number
_RELATIVE = re.compile(r"\[rip ([+-]) (0x[0-9a-f]+|\d+)\]")
_NUMBER = re.compile(r"0x[0-9a-f]{4,6}\b")
_TOP = 1 << 64
_PADDING = ("nop", "int3")
_SHIFTED = re.compile(r"(?<=[+-] )(0x[0-9a-f]+|\d+)(?=\])")


class Instruction(NamedTuple):
    """`text` has numbers as they are, `percpu` those that may be the offset of a processor's variable as its name."""

    text: str
    percpu: str


class Normal:
    """The forms of the functions of one kernel or module."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._engine = Cs(CS_ARCH_X86, CS_MODE_64)
        self._engine.skipdata = True

    def form(self, function: Function) -> list[Instruction]:
        """Its instructions; a jump inside names the number of the instruction that it goes to."""
        start, end = function.address, function.address + len(function.code)
        found: list[Instruction] = []
        inside: list[tuple[int, str, int]] = []
        numbers: dict[int, int] = {}
        for address, size, mnemonic, operands in self._engine.disasm_lite(function.code, start):
            numbers[address] = len(found)
            if mnemonic in _PADDING:
                continue
            if operands.startswith("0x") and start <= (target := int(operands.partition(",")[0], 16)) < end:
                inside.append((len(found), mnemonic, target))
            elif "0x" in operands or "rip" in operands:
                segment = "gs:" in operands
                operands = _RELATIVE.sub(lambda match: self._relative(match, address + size, segment), operands)    # noqa: B023
                operands = _ADDRESS.sub(self._absolute, operands)
                operands = _NEGATIVE.sub(self._negative, operands)
                found.append(Instruction(f"{mnemonic} {operands}", f"{mnemonic} {_NUMBER.sub(self._percpu, operands)}"))
                continue
            found.append(Instruction(*[f"{mnemonic} {operands}"] * 2))
        for number, mnemonic, target in inside:
            found[number] = Instruction(*[f"{mnemonic} #{numbers.get(target, target - start)}"] * 2)
        return found

    def _relative(self, match: re.Match[str], following: int, segment: bool) -> str:
        offset = int(match[2], 0)
        address = (following + (offset if match[1] == "+" else -offset)) % _TOP
        return f"[{self._code.percpu_name(address) if segment else self._code.name_of(address)}]"

    def _absolute(self, match: re.Match[str]) -> str:
        return self._code.name_of(int(match[0], 16)) or match[0]

    def _negative(self, match: re.Match[str]) -> str:
        return self._code.name_of(_TOP - int(match[1], 16)) or match[0]

    def _percpu(self, match: re.Match[str]) -> str:
        return self._code.percpu_name(int(match[0], 16)) or match[0]


def is_same(old: Instruction, new: Instruction) -> bool:
    return old.text == new.text or old.percpu == new.percpu


def shifts(old: Sequence[Instruction], new: Sequence[Instruction]) -> set[tuple[str, str]] | None:
    """The old and new offsets in memory operands by which the two differ; None if they differ by more."""
    if len(old) != len(new):
        return None
    found = set()
    for one, other in zip(old, new, strict=True):
        if not is_same(one, other):
            if _SHIFTED.sub("", one.text) != _SHIFTED.sub("", other.text):
                return None
            found.add((_SHIFTED.findall(one.text)[0], _SHIFTED.findall(other.text)[0]))
    return found
