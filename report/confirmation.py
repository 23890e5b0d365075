"""How certain a regression is, in numbers and in words."""
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

from report.results import KernelResult, TestResult


@dataclass
class Confirmation:
    """The attempts at one test; `new` and `old` are the seeds under which it failed on that kernel."""

    seeds: list[int]
    new: list[int] = field(default_factory=list)
    old: list[int] | None = field(default_factory=list)     # None: the old kernel was not tried
    deterministic: bool | None = None       # whether the same seed gave the same run on the new kernel
    trouble: str = ""                       # why it could not be tried; the rest is then meaningless

    @property
    def certain(self) -> bool:
        """It fails on the new kernel under every seed, never on the old one, and the machine was not seen to be nondeterministic."""
        return not self.trouble and self.new == self.seeds and self.old == [] and self.deterministic is not False

    def __str__(self) -> str:
        if self.trouble:
            return f"not confirmed: {self.trouble}"
        if all(side in (None, [], self.seeds) for side in (self.new, self.old)):
            text = f"fails {self._share(self.new)} on new" + (f", {self._share(self.old)} on old" if self.old is not None else "")
        else:
            text = self._under("new", self.new) + (f"; {self._under('old', self.old)}" if self.old is not None else "")
        if self.old is None:
            text += "; the old kernel was not tried"
        if not self.new:
            text += "; it may depend on the tests that ran before it"
        if self.deterministic is False:
            text += "; not deterministic: two runs with the same seed differed"
        return text

    def _share(self, side: Sequence[int]) -> str:
        return f"{len(side)} of {len(self.seeds)}"

    def _under(self, name: str, side: Sequence[int]) -> str:
        return f"fails under {self._share(side)} seeds on {name}" + (f": {', '.join(map(str, side))}" if side else "")

    def as_dict(self) -> dict[str, Any]:
        """The form that results.json has."""
        return asdict(self)


def certainty(test: TestResult, kernel: KernelResult) -> list[str]:
    """The lines below a regression on `kernel`: the result of its attempts, and the command that repeats the first failure."""
    if not test.confirmation:
        return []
    confirmation = Confirmation(**test.confirmation)
    lines = [str(confirmation)]
    if confirmation.new:
        seed = min(confirmation.new)
        words = ["./kdrift", "pytest", "--kernel", kernel.spec, *([] if seed == 1 else ["--seed", str(seed)]), test.id]
        if PurePath(test.id.partition("::")[0]).suffix == ".py":        # a command's results are no tests of pytest
            lines.append("repeat with: " + shlex.join(words))
    return lines
