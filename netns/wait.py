"""Waiting for something to become true, and measuring how long it took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from netns.errors import ExpectationFailed


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


def eventually(what: str, observe: Callable[[], object], expected: object = True, *, within: float, every: float = 0.02) -> object:
    """Call `observe` until its value is as expected; returns that value. See matches().

    `what` names the value and its owner: "Tcp.CurrEstab of server" (see also Host.await_counter()). `within` and `every` are seconds.
    Raises ExpectationFailed with the name, the expected value and the last one; TypeError without a name.
    """
    check("eventually", what, observe, expected)
    met, value = poll(observe, expected, within, lambda left: time.sleep(min(every, left)))
    if not met:
        raise ExpectationFailed(f"{what}: expected {wanted(expected)} within {within:g} s, last value {value!r}")
    return value


def matches(value: object, expected: object) -> bool:
    """The rule of eventually() and Capture.until(): an Expected decides about the value, True and False are compared with its
    truth, anything else with the value itself."""
    if isinstance(expected, Expected):
        return bool(expected(value))
    return bool(value) is expected if isinstance(expected, bool) else value == expected


def wanted(expected: object) -> str:
    """The expected value in words."""
    return str(expected) if isinstance(expected, Expected) else repr(expected)


def check(caller: str, what: object, observe: object, expected: object) -> None:
    """Raises TypeError where a value or a condition has no name, or nothing observes it."""
    if not isinstance(what, str) or callable(expected) and not isinstance(expected, Expected):
        raise TypeError(f"{caller}() needs a name for the value, and a condition with a name: Expected, at_least()")
    if not callable(observe) or isinstance(observe, Expected):
        raise TypeError(f"{caller}() needs a function that returns {what}, and the expected value after it")


def poll(observe: Callable[[], object], expected: object, within: float, pause: Callable[[float], None]) -> tuple[bool, object]:
    """Observe, at most `within` seconds, until the value is as expected: whether it is, and the last value. `pause` gets the
    seconds that are left."""
    began = time.monotonic()
    while True:
        value = observe()
        if matches(value, expected):
            return True, value
        left = within - (time.monotonic() - began)
        if left <= 0:
            return False, value
        pause(left)


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
