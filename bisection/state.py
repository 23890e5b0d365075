"""What a bisection has found so far, in a file: the same command goes on from there after Ctrl-C or a kill."""
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from report.results import TestResult, write_whole

NAME = "bisect.json"


class StateError(Exception):
    """The file cannot be used; one line says why."""


@dataclass
class Tried:
    """One kernel: its result, or why there is none (`trouble`)."""

    result: TestResult | None = None
    trouble: str = ""
    took_s: float = 0.0                     # wall time, with fetching and booting


@dataclass
class State:
    """`asked` is what the bisection is about; `steps` are by version, `confirmed` has the sides that the seeds gave, by version."""

    path: Path
    asked: dict[str, Any]
    steps: dict[str, Tried] = field(default_factory=dict)
    confirmed: dict[str, list[str]] = field(default_factory=dict)

    def save(self) -> None:
        """Raises OSError."""
        document = {"asked": self.asked, "steps": {name: asdict(tried) for name, tried in self.steps.items()}, "confirmed": self.confirmed}
        write_whole(self.path, json.dumps(document, indent=1) + "\n")


def opened(directory: Path, asked: dict[str, Any], name: str = NAME) -> State:
    """The state in a directory; new if there is none. Kernels that could not be had or booted are not in it: they are tried
    again. Raises StateError if it is of another bisection, OSError."""
    path = directory / name
    if not path.exists():
        return State(path, asked)
    try:
        document = json.loads(path.read_bytes())
        steps = {name: Tried(TestResult(**each["result"]), "", each["took_s"]) for name, each in document["steps"].items()
                 if each["result"]}
        found = State(path, document["asked"], steps, {name: list(sides) for name, sides in document["confirmed"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StateError(f"{path}: not written by ./kdrift bisect") from None
    if found.asked != asked:
        others = ", ".join(each for each in asked if found.asked.get(each) != asked[each])
        raise StateError(f"{path} is of another bisection ({others}): choose another directory with --report")
    return found
