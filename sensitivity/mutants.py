"""Where a function can be broken: one instruction is changed into another of the same length."""
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace

from capstone import CS_ARCH_X86, CS_MODE_64, Cs, CsInsn
from capstone.x86 import (
    X86_INS_ADD,
    X86_INS_AND,
    X86_INS_CMP,
    X86_INS_MOV,
    X86_INS_OR,
    X86_INS_SUB,
    X86_INS_TEST,
    X86_OP_IMM,
    X86_OP_REG,
    X86_REG_RSP,
)

_LONGEST = 1 << 14                          # bytes of a function
NOP = bytes.fromhex("0f1f440000")
NOTHING = "nothing"                         # the kind of a mutant that changes nothing
# Calls that are not the function's own work: checks of the compiler or the kernel.
_NOT_CALLS = ("__fentry__", "__x86_", "__stack_chk_fail", "__warn_printk", "_printk", "__sanitizer", "__rcu_read_", "__ubsan")
_MASKING = (X86_INS_AND, X86_INS_TEST)
_ADDRESSES = -4096                          # kernel addresses are below; negative values above are numbers (include/linux/err.h)
_WITH_CONSTANT = (X86_INS_MOV, X86_INS_ADD, X86_INS_SUB, X86_INS_OR, *_MASKING)


@dataclass(frozen=True)
class Symbol:
    """A function in memory; `module` is empty for the kernel itself."""

    name: str
    address: int
    size: int
    module: str = ""


@dataclass(frozen=True)
class Mutant:
    """`old` at `address` becomes `new`. `text` is the instruction and its change."""

    function: str
    offset: int                             # bytes from the function's start
    address: int
    old: bytes
    new: bytes
    kind: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.function}+{self.offset:#x} {self.kind}"

    def unchanged(self) -> "Mutant":
        """A mutant in the same place that changes nothing: a verdict that it was killed is wrong."""
        return replace(self, new=self.old, kind=NOTHING, text=f"{self.text.partition(':')[0]}: unchanged")


def read_symbols(kallsyms: str, names: Set[str]) -> tuple[list[Symbol], dict[int, str]]:
    """The functions of these names, with the compiler's copies, and the names of all addresses in /proc/kallsyms."""
    table = []
    for line in kallsyms.splitlines():
        address, kind, name, *module = line.split()
        if kind in "tT":
            table.append((int(address, 16), name, module[0].strip("[]") if module else ""))
    table.sort()
    found = []
    for number, (start, function, owner) in enumerate(table):
        if function.split(".")[0] in names:
            end = next((table[later][0] for later in range(number + 1, len(table)) if table[later][0] > start), start)
            found.append(Symbol(function, start, min(end - start, _LONGEST), owner))
    return found, {address: name for address, name, _module in table}


def disassemble(symbol: Symbol, code: bytes) -> Iterator[CsInsn]:
    engine = Cs(CS_ARCH_X86, CS_MODE_64)
    engine.detail = True
    yield from engine.disasm(code, symbol.address)


def mutants(symbol: Symbol, code: bytes, names: dict[int, str]) -> Iterator[Mutant]:
    """All mutants of a function. `names` are the symbols that it calls, by address."""
    for instruction in disassemble(symbol, code):
        for new, kind, what in _changes(instruction, names):
            yield Mutant(symbol.name, instruction.address - symbol.address, instruction.address, bytes(instruction.bytes), new, kind,
                         f"{instruction.mnemonic} {instruction.op_str}: {what}")


def _changes(instruction: CsInsn, names: dict[int, str]) -> Iterator[tuple[bytes, str, str]]:
    code = bytes(instruction.bytes)
    if 0x70 <= code[0] <= 0x7F:
        yield bytes([code[0] ^ 1]) + code[1:], "condition", "condition inverted"
    elif code[0] == 0x0F and 0x80 <= code[1] <= 0x8F:
        yield code[:1] + bytes([code[1] ^ 1]) + code[2:], "condition", "condition inverted"
    elif code[0] == 0xE8:
        callee = names.get(instruction.operands[0].imm % (1 << 64), "")
        if not callee.startswith(_NOT_CALLS):
            yield NOP, "call", f"call of {callee} skipped" if callee else "call skipped"
    elif instruction.id == X86_INS_CMP or instruction.id in _WITH_CONSTANT:
        yield from _constant(instruction, code)


def _constant(instruction: CsInsn, code: bytes) -> Iterator[tuple[bytes, str, str]]:
    first, *others = instruction.operands
    if not others or others[-1].type != X86_OP_IMM or (first.type == X86_OP_REG and first.reg == X86_REG_RSP):
        return
    at, size = instruction.encoding.imm_offset, instruction.encoding.imm_size
    if not size:
        return
    value = int.from_bytes(code[at:at + size], "little", signed=True)
    compared = instruction.id == X86_INS_CMP
    if not value and not compared:
        return                              # a 0 mostly initialises a field that nothing else sets
    changed = value + 1 if compared else _another(value, instruction.id in _MASKING)
    new = code[:at] + (changed % (1 << 8 * size)).to_bytes(size, "little") + code[at + size:]
    yield new, "comparison" if compared else "constant", f"{value:#x} becomes {changed:#x}"


def _another(value: int, mask: bool) -> int:
    """The number, which is not 0, without its highest bit; a negative mask gets its lowest zero bit set. Only such a bit matters:
    one jiffy more in a timeout, or one more bit in a mask, is no visible fault. An address moves by a word: one byte further, a function
    would begin in the middle of its endbr64, which is still an instruction without effect."""
    if value < _ADDRESSES:
        return value + 8
    if mask and value < -1:
        return value | (value + 1)
    magnitude = abs(value)
    changed = magnitude & ~(1 << magnitude.bit_length() - 1)
    return changed if value >= 0 else -changed
