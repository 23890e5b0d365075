"""Is a regression certain?  Its test runs again on both kernels, each time in a restored machine, under several seeds.

The first outcome stays on record: the attempts only add how certain it is.
"""
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from common.errors import trouble_of
from report.confirmation import Confirmation
from vm.qemu import VMError

FAILED = ("failed", "crashed", "lost")


@dataclass(frozen=True)
class Attempt:
    """One test in its own machine.  `seen` is everything that must be the same under the same seed: packets, counters, the clock."""

    outcome: str
    message: str = ""
    seen: object = None

    @property
    def fails(self) -> bool:
        return self.outcome in FAILED


class Bench(Protocol):
    """The saved machine of one kernel, with the tests collected."""

    def attempt(self, test: str, seed: int) -> Attempt:
        """Run one test in a machine restored for it."""


def confirm(tests: Iterable[str], new: Bench, old: Bench | None, count: int, slots: int = 1,
            done: Callable[[str, Confirmation], None] = lambda test, confirmation: None) -> dict[str, Confirmation]:
    """Try each test `count` times on both kernels, under the seeds 1 to `count`; seed 1 twice on the new one.

    `old` is None if the old kernel cannot be booted: then only the new one is tried.  `slots` machines run at a time.
    """
    seeds = list(range(1, count + 1))
    found = {}
    with ThreadPoolExecutor(slots) as pool:
        try:
            tries = {test: ([pool.submit(new.attempt, test, seed) for seed in (seeds[0], *seeds)],
                            [pool.submit(old.attempt, test, seed) for seed in seeds] if old else None) for test in tests}
            for test, (on_new, on_old) in tries.items():
                found[test] = _judge(seeds, on_new, on_old)
                done(test, found[test])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _judge(seeds: list[int], on_new: Sequence[Future[Attempt]], on_old: Sequence[Future[Attempt]] | None) -> Confirmation:
    try:
        twice, *attempts = [each.result() for each in on_new]
        failed = [seed for seed, attempt in zip(seeds, attempts, strict=True) if attempt.fails]
        before = None if on_old is None else [seed for seed, each in zip(seeds, on_old, strict=True) if each.result().fails]
    except (VMError, OSError) as error:
        return Confirmation([], trouble=trouble_of(error))
    return Confirmation(seeds, failed, before, deterministic=twice == attempts[0])
