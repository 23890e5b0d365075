"""What exploring has found, in a directory that outlives the process: a file for each kind, and a line for each batch."""
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from explore.language import Scenario, ScenarioError, check
from report.results import write_whole

LEDGER = "batches.jsonl"


@dataclass
class Finding:
    """A kind of difference, confirmed under `seeds` on both kernels. `explained` is the entry of changes.toml, if any; `scenario` the
    smallest that shows it, and `found_in` the name of the one that was made up; `story` tells it step by step. `old` and `new` are the
    figures (netns.scenario.figures) that differ, of the kernels that it was found `between`."""

    kind: str
    text: str
    scenario: Scenario
    found_in: str
    seeds: list[int]
    explained: str = ""
    vocabulary: bool = False
    shrunk: bool = False
    story: list[str] = field(default_factory=list)
    rank: int = 0
    between: list[str] = field(default_factory=list)
    old: dict[str, Any] = field(default_factory=dict)
    new: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return hashlib.sha256(self.kind.encode()).hexdigest()[:8]


@dataclass
class BatchDone:
    """A batch of scenarios that has been judged. `kinds` counts the scenarios that show each kind, `unsteady` those kinds that did not come
    again when they were confirmed; seconds are of wall time and of QEMU's processor time."""

    number: int
    scenarios: int
    differing: int
    kinds: dict[str, int]
    unsteady: dict[str, int]
    wall_s: float
    cpu_s: float


class DamagedFinding(Exception):
    """A finding cannot be read; the message says which, in one line."""


def found_in(directory: Path, name: str) -> Finding:
    """The finding of this id there, of whatever exploration. Raises DamagedFinding, OSError."""
    file = directory / f"kind-{name}.json"
    try:
        entry = json.loads(file.read_bytes())
        del entry["key"]
        finding = Finding(**entry)
        check(finding.scenario)
        return finding
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ScenarioError):
        raise DamagedFinding(f"{file}: damaged") from None


class Findings:
    """The directory of one exploration. What another one left there, by another `key`, is ignored; so is what is damaged."""

    def __init__(self, directory: Path, key: str) -> None:
        """Raises OSError."""
        self.directory, self._key = directory, key
        self.damaged = 0
        directory.mkdir(parents=True, exist_ok=True)
        self.batches = {each["number"]: BatchDone(**each) for each in self._lines()}
        self.found: dict[str, Finding] = {}
        for file in sorted(directory.glob("kind-*.json")):
            try:
                entry = json.loads(file.read_bytes())
                if entry.pop("key") == key:
                    finding = Finding(**entry)
                    self.found[finding.kind] = finding
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self.damaged += 1

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.directory / LEDGER
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            try:
                entry = json.loads(line)
                if entry.pop("key") == self._key:
                    BatchDone(**entry)
                    yield entry
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self.damaged += 1           # the process was killed, or the disk full, while it was written

    def add(self, finding: Finding) -> None:
        """Raises OSError."""
        write_whole(self.directory / f"kind-{finding.id}.json", json.dumps({"key": self._key, **asdict(finding)}, indent=1) + "\n")
        self.found[finding.kind] = finding

    def end_batch(self, batch: BatchDone) -> None:
        """Raises OSError."""
        path = self.directory / LEDGER
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        with path.open("a") as file:
            file.write("\n" * torn + json.dumps({"key": self._key, **asdict(batch)}) + "\n")
        self.batches[batch.number] = batch

    @property
    def next_batch(self) -> int:
        return next(number for number in range(len(self.batches) + 1) if number not in self.batches)

    def counts(self) -> Counter[str]:
        """The number of scenarios that show each kind."""
        total: Counter[str] = Counter()
        for batch in self.batches.values():
            total.update(batch.kinds)
        return total
