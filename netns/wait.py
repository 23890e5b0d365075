"""Waiting for something to become true, and measuring how long it took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from netns.errors import NotMet


class Expected:
    """A condition with a name for messages: "at least 1"."""

    def __init__(self, words: str, holds: Callable[[object], bool]) -> None:
        self._words = words
        self._holds = holds

    def __call__(self, value: object) -> bool:
        return self._holds(value)

    def __str__(self) -> str:
        return self._words


def at_least(count: float) -> Expected:
    return Expected(f"at least {count}", lambda value: value >= count)


def at_most(count: float) -> Expected:
    return Expected(f"at most {count}", lambda value: value <= count)


def eventually(what: str, observe: Callable[[], object], expected: object, within: float, every: float = 0.02) -> object:
    """Call `observe` until its value equals `expected`, or satisfies it if it is an Expected; returns that value.

    `what` names the value and its owner: "Tcp.CurrEstab of server" (see also Host.reaches()). `within` and `every` are seconds.
    Raises NotMet with the name, the last value and the expected one; TypeError without a name.
    """
    if not isinstance(what, str) or callable(expected) and not isinstance(expected, Expected):
        raise TypeError("eventually() needs a name for what is observed, and one for a condition: Expected, at_least()")
    began = time.monotonic()
    while True:
        value = observe()
        if expected(value) if isinstance(expected, Expected) else value == expected:
            return value
        gone = time.monotonic() - began
        if gone >= within:
            wanted = str(expected) if isinstance(expected, Expected) else repr(expected)
            raise NotMet(f"after {within:g} s {what} is {value!r}, expected {wanted}")
        time.sleep(min(every, within - gone))


class Stopwatch:
    """Seconds since its start, or between start and stop. Clock: CLOCK_MONOTONIC."""

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
    """A stopwatch that runs within the block."""
    watch = Stopwatch()
    try:
        yield watch
    finally:
        watch.stop()
