"""What a scenario showed, as comparable values: the packets, counters and log lines of report.traffic, and as texts the results of steps,
events and what was left.

A text stands where the cell of a table would, so that the verdict's kinds (report.kinds) and changes.toml apply to both.
"""
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from explore.bench import Observed
from explore.footprints import evaluated
from explore.language import Scenario, sockets
from report.changes import Kind, changes
from report.expected import explain
from report.results import KernelResult, TestResult
from report.signature import general
from report.traffic import CELL, SECONDS, differences, numbers

TEST = "explore::"                          # what precedes a scenario's name where the verdict has a test's id
TABLE = "explore"
ENDED = "the machine"
INFO = "TCP_INFO."                          # precedes a field of a socket that is left, which counts as a counter does
_BYTES = re.compile(r"\d+ bytes.*")         # how many is no kind of its own


@dataclass(frozen=True)
class Seen:
    """`texts` by place, `numbers` by the names of report.traffic, times with its suffix. Two scenarios' values are comparable by key."""

    texts: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


def seen(scenario: Scenario, observed: Observed) -> Seen:
    """The values of one run. What is not the same in each run by design, such as ports, is not among them."""
    if "ended" in observed:
        return Seen({ENDED: f"{observed['ended']}: {general(observed['why'])}"})
    kinds = dict(sockets(scenario))
    texts: dict[str, str] = {}
    for number, (step, (result, _at)) in enumerate(zip(scenario["steps"], observed["steps"], strict=True), 1):
        texts[f"{number} {title(step, kinds)}"] = result
    values = dict(numbers({role: evaluated(**unread) for role, unread in observed["hosts"].items()}, observed["log"]))
    count: Counter[str] = Counter()
    for name, events, at in observed["events"]:
        count[name] += 1
        what = f"{count[name]} of {name} event at {kinds[name]}"
        texts[what] = events
        values[f"{what}{SECONDS}"] = at
    for name, left in observed["sockets"].items():
        for what, value in left.items():
            if isinstance(value, int):
                values[f"{name} counts {INFO}{what}"] = value
            else:
                texts[f"{name} {kinds[name]} socket's {what}"] = str(value)
    for role, listed in observed["routes"].items():
        texts[f"{role} routes"] = "; ".join(sorted(listed)) or "none"
    for role, listed in observed.get("tracked", {}).items():
        texts[f"{role} tracked connections"] = "; ".join(listed) or "none"
    return Seen(texts, values)


def title(step: Mapping[str, object], kinds: Mapping[str, str]) -> str:
    """What a step does, without the names that the scenario chose: `connect tcp`."""
    what = step.get("option") or step.get("error") or (step["name"] if step["do"] == "sysctl" else "")
    return " ".join(str(word) for word in (step["do"], kinds.get(str(step.get("socket")), step.get("kind", "")), what) if word)


def differing(one: Seen, other: Seen) -> set[str]:
    """The keys whose values differ; times by more than timers round (report.traffic.differences)."""
    if ENDED in one.texts or ENDED in other.texts:
        return {ENDED} if one.texts.get(ENDED) != other.texts.get(ENDED) else set()
    texts = {key for key in one.texts.keys() | other.texts.keys() if one.texts.get(key) != other.texts.get(key)}
    return texts | differences(one.numbers, other.numbers).keys()


def steady(old: Sequence[Seen], new: Sequence[Seen]) -> set[str]:
    """The keys that differ between the kernels under every seed, and on neither between seeds."""
    found = set.intersection(*(differing(was, now) for was, now in zip(old, new, strict=True)))
    for side in (old, new):
        for each in side[1:]:
            found -= differing(side[0], each)
    return found


def only(values: Seen, keys: Set[str]) -> Seen:
    return Seen({key: value for key, value in values.texts.items() if key in keys},
                {key: value for key, value in values.numbers.items() if key in keys})


@dataclass
class Pair:
    """What a scenario showed on both kernels, reduced to what differs."""

    name: str
    old: Seen
    new: Seen


def kinds_of(pairs: Iterable[Pair], old: KernelResult, new: KernelResult) -> list[Kind]:
    """The kinds of difference in these scenarios, grouped and explained as a verdict's are. The kernels' results have no tests."""
    sides: tuple[list[TestResult], list[TestResult]] = ([], [])
    for pair in pairs:
        first = _first(pair)
        amounts = {place for place, key in first.items() if all(_BYTES.fullmatch(each.texts.get(key, "")) for each in (pair.old, pair.new))}
        for side, values in zip(sides, (pair.old, pair.new), strict=True):
            traffic = _plain(values.numbers)
            for place, key in first.items():
                text = values.texts.get(key, "nothing")
                if place in amounts:
                    traffic[f"it counts bytes of {place}"] = float(text.partition(" ")[0])
                else:
                    traffic[f"{CELL}{TABLE}, {place}: {text}"] = 1.0
            side.append(TestResult(TEST + pair.name, traffic=traffic))
    was, now = (replace(kernel, tests=tests) for kernel, tests in zip((old, new), sides, strict=True))
    return changes(was, now, expected=explain(was, now))


def _first(pair: Pair) -> dict[str, str]:
    """By place without number and name, the first text that differs there."""
    found: dict[str, str] = {}
    for key in sorted(pair.old.texts.keys() | pair.new.texts.keys(), key=_order):
        found.setdefault(_place(key), key)
    return found


def _order(key: str) -> tuple[int, str]:
    number = key.partition(" ")[0]
    return (int(number) if number.isdigit() else 1 << 30, key)


def _place(key: str) -> str:
    if key == ENDED:
        return key
    return key.partition(" of ")[2].partition(" ")[2] if " event at " in key else key.partition(" ")[2]


def _plain(values: Mapping[str, float]) -> dict[str, float]:
    """Times of events by what they are, the last of each: report.kinds reads `WHO VERB WHAT at`."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if " event at " in name:
            found[f"it sees an event at {name.rpartition(' event at ')[2]}"] = value
        else:
            found[name] = value
    return found
