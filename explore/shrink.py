"""The smallest scenario that still shows a difference: delta debugging over the steps, then over their values.

Source: Zeller and Hildebrandt, Simplifying and isolating failure-inducing input, IEEE TSE 28 (2002). Candidates are tried many at a time,
because a machine runs a batch of them almost as quickly as one.
"""
from collections.abc import Callable, Iterator, Sequence

from explore.language import Scenario, ScenarioError, check, without

Holds = Callable[[Sequence[Scenario]], Sequence[bool]]       # of each scenario, whether it shows the difference
_SIMPLEST = {"seconds": (0.05, 0.3, 1.5, 8), "size": (1, 100, 1448)}
_MOST_ROUNDS = 60


def shrink(scenario: Scenario, holds: Holds) -> Scenario:
    """A scenario from which no step can be taken, and no value made simpler, so that it still holds. It is given one that holds."""
    rounds = 0

    def judged(candidates: Sequence[Scenario]) -> list[Scenario]:
        nonlocal rounds
        rounds += 1
        if not candidates or rounds > _MOST_ROUNDS:
            return []
        return [each for each, yes in zip(candidates, holds(candidates), strict=True) if yes]

    scenario = _fewer_steps(scenario, judged)
    while simpler := judged(list(_simpler(scenario))):
        # Each of them changes one value: all changes together may hold too.
        together = judged([whole]) if (whole := _merged(scenario, simpler)) not in (scenario, *simpler) else []
        scenario = (together or simpler)[0]
    return _fewer_steps(scenario, judged)


def _fewer_steps(scenario: Scenario, judged: Callable[[Sequence[Scenario]], list[Scenario]]) -> Scenario:
    size = max(1, len(scenario["steps"]) // 2)
    while scenario["steps"]:
        steps = range(len(scenario["steps"]))
        parts = [set(steps[at:at + size]) for at in steps[::size]]
        candidates = [without(scenario, part) for part in parts]
        good = judged(candidates)
        if good:
            removed: set[int] = set()
            unions = []
            for part, candidate in zip(parts, candidates, strict=True):
                if candidate in good:
                    removed |= part
                    unions.append(without(scenario, removed))
            scenario = min([*good, *judged(unions[1:])], key=lambda each: len(each["steps"]))
            size = min(size, max(1, len(scenario["steps"]) // 2))
        elif size == 1:
            break
        else:
            size //= 2
    return scenario


def _simpler(scenario: Scenario) -> Iterator[Scenario]:
    """The scenario with one value made simpler, in each way."""
    for change in ({"family": "ipv4"}, {"hosts": 2}, {"hosts": 1}):
        if any(scenario[key] != value and (key != "hosts" or scenario[key] > value) for key, value in change.items()):
            changed = {**scenario, **change}
            changed.pop("mtus", None) if "hosts" in change else None
            if _valid(changed):
                yield changed
    if "mtus" in scenario:
        yield {key: value for key, value in scenario.items() if key != "mtus"}
    for index, step in enumerate(scenario["steps"]):
        for field in ("flags", "seq", "ack", "window", "ttl", "bad_checksum", "mtu", "advmss", "metric"):
            if field in step and _valid(changed := _replaced(scenario, index, {key: value for key, value in step.items() if key != field})):
                yield changed
        for field, simplest in _SIMPLEST.items():
            if smaller := [value for value in simplest if value < step.get(field, 0)]:
                yield _replaced(scenario, index, {**step, field: smaller[0]})
                if len(smaller) > 1:
                    yield _replaced(scenario, index, {**step, field: smaller[-1]})


def _replaced(scenario: Scenario, index: int, step: dict[str, object]) -> Scenario:
    return {**scenario, "steps": [*scenario["steps"][:index], step, *scenario["steps"][index + 1:]]}


def _merged(scenario: Scenario, simpler: Sequence[Scenario]) -> Scenario:
    """All these changes at once, the first of those about one step."""
    steps = list(scenario["steps"])
    for each in simpler:
        for index, (was, now) in enumerate(zip(scenario["steps"], each["steps"], strict=True)):
            if was != now and steps[index] == was:
                steps[index] = now
    return {**scenario, "steps": steps}


def _valid(scenario: Scenario) -> bool:
    try:
        check(scenario)
    except ScenarioError:
        return False
    return True
