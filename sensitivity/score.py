"""The verdict on each mutant, and the scores over all."""
import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from report.measured import tolerance_of
from report.traffic import differences
from rerun.bench import Seen


@dataclass(frozen=True)
class Verdict:
    """`outcome` is one of OUTCOMES; `by` is the test that noticed, `how` what it noticed; `tests` ran, of the `reaching` ones that
    execute the instruction."""

    mutant: str
    function: str
    families: tuple[str, ...]
    text: str
    outcome: str
    by: str = ""
    how: str = ""
    tests: int = 0
    reaching: int = 0


# "no start": the guest no longer ran when the first test should begin.
OUTCOMES = ("killed", "survived", "not reached", "no start")
# The name of what a test with another outcome noticed.
OUTCOME = "outcome"
# For a mutant that changes nothing: it was called killed, or not.
FALSE_ALARM, QUIET = "false alarm", "quiet"


def moved(base: Seen, now: Seen) -> dict[str, str]:
    """By name, the measurements that moved by more than their tolerance, and the traffic that differs."""
    found = {}
    after = {one["name"]: one for one in now.measurements}
    for one in base.measurements:
        name, value = one["name"], one["value"]
        if name not in after:
            found[name] = f"{name} is missing"
        elif abs(after[name]["value"] - value) > tolerance_of(one):
            found[name] = f"{name}: {value:.6g} -> {after[name]['value']:.6g} {one['unit']}"
    return found | differences(base.traffic, now.traffic)


def noticed(base: Seen, now: Seen, unsteady: Container[str] = ()) -> dict[str, str]:
    """By name, what a test noticed: another outcome, or else what moved, except `unsteady` names, which move by themselves."""
    if base.outcome != now.outcome:
        return {OUTCOME: f"{base.outcome} -> {now.outcome}: {(now.message.splitlines() or [''])[0]}"}
    return {name: text for name, text in moved(base, now).items() if name not in unsteady}


class Ledger:
    """The verdicts so far, one per line in a file, so that an interrupted run continues where it was."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self.verdicts: dict[str, Verdict] = {}
        for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
            # The last line may be half written.
            if line.endswith("\n") and (entry := json.loads(line))["key"] == key:
                entry.pop("key")
                entry["families"] = tuple(entry["families"])
                self.verdicts[entry["mutant"]] = Verdict(**entry)

    def add(self, verdict: Verdict) -> None:
        self.verdicts[verdict.mutant] = verdict
        with self._path.open("a") as file:
            file.write(json.dumps({"key": self._key, **asdict(verdict)}) + "\n")


@dataclass(frozen=True)
class Score:
    """Mutants by outcome, of a function, a family or all. `share` is killed / reached (0 to 1), or None if none was reached."""

    name: str
    killed: int
    survived: int
    not_reached: int
    no_start: int

    @property
    def share(self) -> float | None:
        reached = self.killed + self.survived
        return self.killed / reached if reached else None

    def __str__(self) -> str:
        share = "" if self.share is None else f"{self.share:.0%}"
        return (f"{share:>5}  {self.killed:5} killed {self.survived:5} survived {self.not_reached:5} not reached "
                f"{self.no_start:4} no start  {self.name}")


def score(name: str, verdicts: Iterable[Verdict]) -> Score:
    outcomes = [verdict.outcome for verdict in verdicts]
    return Score(name, *(outcomes.count(outcome) for outcome in OUTCOMES))


def scores(verdicts: Sequence[Verdict]) -> list[Score]:
    """All, then each family, then each function."""
    families = sorted({family for verdict in verdicts for family in verdict.families})
    functions = sorted({verdict.function for verdict in verdicts})
    return [score("all", verdicts),
            *(score(family, [each for each in verdicts if family in each.families]) for family in families),
            *(score(name, [each for each in verdicts if each.function == name]) for name in functions)]


def checked(verdicts: Sequence[Verdict]) -> str:
    """How often the tool itself was wrong: mutants that change nothing, which count in no score."""
    outcomes = [verdict.outcome for verdict in verdicts]
    wrong = outcomes.count(FALSE_ALARM)
    return f"{wrong + outcomes.count(QUIET)} control mutants that change nothing: {wrong} called killed"
