"""One kernel without another to compare it with: what no kernel may do, and whether a run can be repeated.

Each scenario runs under two seeds. A violation counts if it comes under every one of study.CONFIRMING; what differs between two runs under
the same seed is one too, since such machines do the same each time.
"""
from collections.abc import Sequence

from explore.bench import Observed
from explore.findings import Finding
from explore.language import Scenario
from explore.observation import ENDED, Pair, Seen, differing, seen
from explore.study import CONFIRMING, OLD_SEEDS, Exploration
from fixtures.oops import COMPLAINT
from report.signature import general

_REPEATED = "the same run again"


class Alone(Exploration):
    """Its findings are differences from a kernel that does nothing wrong."""

    def pairs(self, names: Sequence[str], scenarios: Sequence[Scenario]) -> list[Pair]:
        first, second = self._raw([OLD_SEEDS[0], OLD_SEEDS[1]], scenarios)
        texts = [_wrong(one) | _wrong(two) for one, two in zip(first, second, strict=True)]
        for number, two in self._unlike(scenarios, first, second).items():
            texts[number] |= two
        return [_pair(name, found) for name, found in zip(names, texts, strict=True) if found]

    def _unlike(self, scenarios: Sequence[Scenario], first: Sequence[Observed], second: Sequence[Observed]) -> dict[int, dict[str, str]]:
        """Where two seeds give different values, the first is run again; by number of the scenario, what is not the same then."""
        doubtful = [number for number, (one, two) in enumerate(zip(first, second, strict=True))
                    if differing(seen(scenarios[number], one), seen(scenarios[number], two))]
        if not doubtful:
            return {}
        found = {}
        chosen = [scenarios[number] for number in doubtful]
        once, again = self._raw([OLD_SEEDS[0]] * 2, chosen)
        for number, one, two in zip(doubtful, once, again, strict=True):
            if differing(seen(scenarios[number], one), seen(scenarios[number], two)):
                found[number] = {_REPEATED: "shows something else"}
        return found

    def confirmed(self, names: Sequence[str], scenarios: Sequence[Scenario]) -> list[Pair | None]:
        """Of each scenario what is wrong under every seed; None where nothing is."""
        runs = self._raw(CONFIRMING, scenarios)
        unlike = self._unlike(scenarios, runs[0], runs[1])
        found: list[Pair | None] = []
        for number, (name, *each) in enumerate(zip(names, *runs, strict=True)):
            wrong = [_wrong(one) for one in each]
            texts = {place: text for place, text in wrong[0].items() if all(other.get(place) == text for other in wrong[1:])}
            texts |= unlike.get(number, {})
            found.append(_pair(name, texts) if texts else None)
        return found

    def shows(self, finding: Finding, candidates: Sequence[Scenario]) -> list[bool]:
        found = self.confirmed([finding.found_in] * len(candidates), candidates)
        return [pair is not None and finding.kind in {kind.key for kind in self.kinds([pair])} for pair in found]

    def leave_case(self, finding: Finding) -> Finding:
        """A test would have nothing to compare."""
        return finding

    def _raw(self, seeds: Sequence[int], scenarios: Sequence[Scenario]) -> list[list[Observed]]:
        return self.each(lambda seed: self.new.bench.observe(scenarios, seed, checked=True), seeds)


def _wrong(observed: Observed) -> dict[str, str]:
    """By place, what is wrong, in words without numbers."""
    if "ended" in observed:
        return {ENDED: f"{observed['ended']}: {general(observed['why'])}"}
    found = {place: general(text) for place, text in observed["wrong"]}
    complaint = next(filter(COMPLAINT.search, observed["log"]), None)
    return found | ({"the log": general(complaint)} if complaint else {})


def _pair(name: str, texts: dict[str, str]) -> Pair:
    return Pair(name, Seen(), Seen({f"{number} {place}": text for number, (place, text) in enumerate(texts.items(), 1)}))
