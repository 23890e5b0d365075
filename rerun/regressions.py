"""Try the regressions of a validation again."""
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from common.errors import CacheError, trouble_of
from common.temporary import GuardedDirectory
from kernels.extract import Kernel
from report.confirmation import Confirmation
from report.results import TestResult
from report.verdict import Comparison
from rerun.attempts import Attempts, no_machines_left
from rerun.confirm import confirm
from rerun.conversation import Gone
from vm.image import ImageError
from vm.qemu import VMError


@dataclass(frozen=True)
class Settings:
    """`count` is seeds per test; `devices` and `deadline` are the machines', `options` pytest's in the guest."""

    count: int
    slots: int
    devices: Sequence[str] = ()
    deadline: float = 120
    options: Sequence[str] = ()


def confirm_regressions(comparisons: Iterable[Comparison], kernels: Mapping[str, Kernel], settings: Settings,
                        say: Callable[[str], None]) -> None:
    """Give each regression of the comparisons its Confirmation.  `kernels` are those that this machine can boot, by label."""
    wanted = [comparison for comparison in comparisons if comparison.regressions]
    tests: dict[str, dict[str, None]] = {}
    for comparison in wanted:
        if comparison.new.label in kernels:
            for label in (comparison.old.label, comparison.new.label):
                tests.setdefault(label, {}).update(dict.fromkeys(now.id for _was, now in comparison.regressions))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(GuardedDirectory()))
        benches = {label: Attempts(kernels[label], list(names), directory / str(number), settings.devices, settings.deadline,
                                   settings.options)
                   for number, (label, names) in enumerate(tests.items()) if label in kernels}
        stack.enter_context(no_machines_left(*benches.values()))
        troubles = _prepare(benches, settings.slots)
        for comparison in wanted:
            new, old = comparison.new.label, comparison.old.label
            trouble = troubles.get(new) or troubles.get(old) or ("" if new in benches else "this machine has no image of its kernel")
            for _was, now in comparison.regressions:
                if trouble or now.id not in benches[new].tests:
                    now.confirmation = Confirmation([], trouble=trouble or "pytest no longer collects it").as_dict()
            names = [now.id for _was, now in comparison.regressions if not now.confirmation]
            results = {now.id: now for _was, now in comparison.regressions}

            def done(test: str, confirmation: Confirmation, results: dict[str, TestResult] = results) -> None:
                results[test].confirmation = confirmation.as_dict()
                say(f"{test}: {confirmation}")

            if names:
                confirm(names, benches[new], benches.get(old), settings.count, settings.slots, done)


def _prepare(benches: Mapping[str, Attempts], slots: int) -> dict[str, str]:
    """Have the tests collected on each kernel.  Returns why it failed, by label."""
    def prepare(label: str) -> str:
        try:
            benches[label].prepare()
        except (Gone, VMError, ImageError, CacheError, OSError) as error:
            return f"{label}: {trouble_of(error)}"
        return ""

    with ThreadPoolExecutor(slots) as pool:
        return {label: trouble for label, trouble in zip(benches, pool.map(prepare, benches), strict=True) if trouble}
