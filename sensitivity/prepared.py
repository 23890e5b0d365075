"""What the unchanged kernel and its tests do, kept beside the saved machine for the next run."""
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rerun.bench import Seen
from sensitivity.mutants import Symbol

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """`addresses` names all functions of the kernel, `code` has those to be broken; `base` is what each test does, by its index in `tests`,
    `others` what it does in other runs; `reached` says by address which tests execute it."""

    symbols: list[Symbol]
    addresses: dict[int, str]
    code: dict[Symbol, bytes]
    tests: list[str]
    base: dict[int, Seen]
    others: list[dict[int, Seen]]
    reached: dict[int, list[int]]

    def write(self, file: Path, key: str) -> None:
        """The packets' bytes (Seen.exactly) are left out: no one compares them."""
        document = {
            "key": key, "symbols": [[asdict(symbol), self.code[symbol].hex()] for symbol in self.symbols], "addresses": self.addresses,
            "tests": self.tests, "base": _plain(self.base), "others": [_plain(each) for each in self.others], "reached": self.reached,
        }
        file.write_text(json.dumps(document))

    @classmethod
    def read(cls, file: Path, key: str) -> "Prepared | None":
        """None without a whole file that was written with this key."""
        try:
            document = json.loads(file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        if document["key"] != key:
            return None
        code = {Symbol(**symbol): bytes.fromhex(code) for symbol, code in document["symbols"]}
        return cls(list(code), _numbered(document["addresses"]), code, document["tests"], _seen(document["base"]),
                   [_seen(each) for each in document["others"]], _numbered(document["reached"]))


def _plain(found: Mapping[int, Seen]) -> dict[int, dict[str, Any]]:
    return {index: asdict(replace(seen, exactly=None)) for index, seen in found.items()}


def _seen(found: Mapping[str, dict[str, Any]]) -> dict[int, Seen]:
    return {int(index): Seen(**{**seen, "measurements": tuple(seen["measurements"])}) for index, seen in found.items()}


def _numbered(found: Mapping[str, T]) -> dict[int, T]:
    return {int(number): value for number, value in found.items()}
