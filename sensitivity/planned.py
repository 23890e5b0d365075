"""Mutants that are planned: which instruction of a function is changed, and which test must notice it."""
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sensitivity.mutants import Mutant, Symbol, disassemble, mutants

_NOTHING = b"\x90"


@dataclass(frozen=True)
class Plan:
    """`instruction` is a regular expression for its text, such as "inc .*gs:" or "call .* of kfree_skb"; of several that match `number`
    says which, from 0. `change` is "left out" or the kind of a mutant (sensitivity.mutants), such as "condition". `says` is a regular
    expression for what `test` says when it fails; `before` is a test that runs before it, and passes."""

    rule: str
    function: str
    instruction: str
    change: str
    test: str
    says: str
    number: int = 0
    before: str = ""

    @property
    def tests(self) -> list[str]:
        """In their order."""
        return [test for test in (self.before, self.test) if test]

    def mutant(self, code: Mapping[Symbol, bytes], names: dict[int, str]) -> Mutant:
        """Raise ValueError where the function has no such instruction: another compiler's work, or inlined."""
        found = [mutant for symbol in code if symbol.name.split(".")[0] == self.function
                 for mutant in self._candidates(symbol, code[symbol], names) if re.search(self.instruction, mutant.text)]
        if len(found) <= self.number:
            raise ValueError(f"{self.rule}: {self.function} has {len(found)} instructions {self.instruction!r}")
        return found[self.number]

    def _candidates(self, symbol: Symbol, code: bytes, names: dict[int, str]) -> list[Mutant]:
        if self.change != "left out":
            return [mutant for mutant in mutants(symbol, code, names) if mutant.kind == self.change]
        return [Mutant(symbol.name, each.address - symbol.address, each.address, bytes(each.bytes), _NOTHING * len(each.bytes), self.change,
                       f"{each.mnemonic} {each.op_str}") for each in disassemble(symbol, code)]


def plans(file: Path) -> list[Plan]:
    """Those of a file: [[mutation]] tables with the fields of Plan. Raises TypeError for others."""
    return [Plan(**table) for table in tomllib.loads(file.read_text())["mutation"]]
