"""The accuracy of kernel timers: which measured times fit a requested timeout."""

import os
import time
from collections.abc import Iterable

# include/uapi/linux/time.h; Python's time module does not name it.
_CLOCK_MONOTONIC_COARSE = 6

# One jiffy in seconds: the coarse clocks advance once a tick.
TICK = time.clock_getres(_CLOCK_MONOTONIC_COARSE)

# Other work may delay the observation of a timer. On an idle virtual clock it is only the cost of the work itself; on
# the running kernel it is anything else that the machine does.
_VIRTUAL = os.environ.get("KDRIFT_CLOCK") == "virtual"
_LATE = 0.02 if _VIRTUAL else 0.5

_FIRST_LEVEL_JIFFIES = 63
_LEVEL_FACTOR = 8


def wheel_granularity(timeout: float) -> float:
    """Seconds by which the kernel's timer wheel may fire late: its buckets get coarser with the timeout.

    Level 0 keeps timeouts below 63 jiffies exact to the jiffy; each further level holds eight times longer ones in buckets
    eight times as wide: at worst 1/8 of the timeout (64 ms of 1 s at HZ 1000, 262 s of 7200 s).
    Source: kernel/time/timer.c, "The timer wheel has LVL_DEPTH array levels".
    """
    jiffies, bucket, limit = timeout / TICK + 1, 1, _FIRST_LEVEL_JIFFIES
    while jiffies >= limit:
        bucket *= _LEVEL_FACTOR
        limit *= _LEVEL_FACTOR
    return bucket * TICK


def timer_slack(*timeouts: float) -> float:
    """Seconds by which two runs of a chain of timers may differ and still keep the same promise: the tolerance of a measurement.

    Each timer may be late by the wheel's granularity and a jiffy; `timer_slack(0)` is for events that wait for no timer: a wait
    takes a jiffy or more. On the running kernel anything else that the machine does may delay both runs.
    """
    return _slack(timeouts) + (0 if _VIRTUAL else _LATE)


def _slack(timeouts: Iterable[float]) -> float:
    return sum(wheel_granularity(each) + TICK for each in timeouts)


class approx_timer:
    """Equals any time that a chain of kernel timers may take: `seconds == approx_timer(10, 5, 5)`.

    Each timer may seem a jiffy short, because it starts within a jiffy and counts whole ones, and may be late by the
    granularity of the timer wheel and a tick. `late` allows seconds for the work between expiry and observation.
    """

    def __init__(self, *timeouts: float, late: float = _LATE) -> None:
        self.nominal = sum(timeouts)
        self.least = self.nominal - TICK * len(timeouts)
        self.most = self.nominal + _slack(timeouts) + late

    def __eq__(self, seconds: object) -> bool:
        return isinstance(seconds, (int, float)) and self.least <= seconds <= self.most

    def __repr__(self) -> str:
        return f"{self.nominal:g} s by the timer wheel ({self.least:.3f} to {self.most:.3f})"
