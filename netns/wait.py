"""Waiting for something to become true, and measuring how long it took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import NotMet


def eventually(observe: Callable[[], object], expected: object, within: float, every: float = 0.02) -> object:
    """Call `observe` until its value equals `expected`, or satisfies it if it is a function; return that value.

    `within` and `every` are seconds. Raises NotMet with the last value, the expected one and the time gone.
    """
    satisfied = expected if callable(expected) else expected.__eq__
    began = time.monotonic()
    while True:
        value = observe()
        # NotImplemented, the answer of 1 .__eq__("1"), would count as true.
        if satisfied(value) is True:
            return value
        gone = time.monotonic() - began
        if gone >= within:
            wanted = getattr(expected, "__name__", repr(expected))
            raise NotMet(f"after {gone:.3f} s the last value is {value!r}, expected {wanted}")
        time.sleep(min(every, within - gone))


class Stopwatch:
    """Seconds gone since its start, or between its start and its stop. Clock: CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._ended: float | None = None

    def stop(self) -> None:
        self._ended = time.monotonic()

    @property
    def seconds(self) -> float:
        return (time.monotonic() if self._ended is None else self._ended) - self._began


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """A stopwatch that runs for the time of the block."""
    watch = Stopwatch()
    try:
        yield watch
    finally:
        watch.stop()
