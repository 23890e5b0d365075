"""A scenario as a person reads it: the hosts, each step with its result, and what differs between the kernels."""
from collections.abc import Sequence

from explore.language import HOSTS, Scenario, sockets
from explore.observation import Pair, Seen, title

_MOST = 12                                  # differences that a story lists


def story(scenario: Scenario, pair: Pair) -> list[str]:
    """Lines; where the kernels differ a line has both, `OLD -> NEW`."""
    hosts, mtus = HOSTS[scenario["hosts"] - 1], scenario.get("mtus", [])
    kinds = dict(sockets(scenario))
    lines = [f"{scenario['family']}: " + " -- ".join(hosts) + (f", mtu {', '.join(map(str, mtus))}" if mtus else "")]
    shown: set[str] = set()
    for number, step in enumerate(scenario["steps"], 1):
        key = f"{number} {title(step, kinds)}"
        shown.add(key)
        lines.append(f"{number:3}  {_words(step)}" + _both(pair, key))
    rest = sorted(key for key in {*pair.old.texts, *pair.new.texts, *pair.old.numbers, *pair.new.numbers} - shown)
    lines += [f"     {key}:{_both(pair, key)}" for key in rest[:_MOST]]
    if len(rest) > _MOST:
        lines.append(f"     and {len(rest) - _MOST} more")
    return lines


def _words(step: dict[str, object]) -> str:
    return " ".join([str(step["do"]), *(f"{key}={value}" for key, value in step.items() if key != "do")])


def _both(pair: Pair, key: str) -> str:
    sides: Sequence[Seen] = (pair.old, pair.new)
    if not any(key in side.texts or key in side.numbers for side in sides):
        return ""
    return "  " + " -> ".join(str(side.texts.get(key, f"{side.numbers.get(key, 0):g}" if key in {*pair.old.numbers, *pair.new.numbers}
                                                 else "nothing")) for side in sides)
