"""How long a process may say nothing, whatever else the host has to do."""
import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used; 0 when it has ended.  Source: proc_pid_stat(5), utime and stime."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / _TICKS


def waited(pid: int) -> float:
    """Seconds that the threads of a process have waited for a processor; 0 where the host's kernel does not count them.

    Source: the second field of /proc/PID/task/TID/schedstat (Documentation/scheduler/sched-stats.rst).
    """
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1])
    except (OSError, IndexError):
        pass
    return total / 1e9


def wants_to_run(pid: int) -> bool:
    """Whether a thread of a process runs, or waits for a processor.  A wait is counted in waited() only when it is over."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            if Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "R":
                return True
    except OSError:
        pass
    return False


class Patience:
    """`seconds` in which a process computed, or slept, without a word.

    Time in which it waited for a processor does not count, so a busy host changes nothing: what counts is processor time (a guest in a
    loop, or one that skips from timer to timer), or wall time less the waiting (a guest without any timer, a process that was stopped).
    The latter ends it only after `asleep` seconds, which default to `seconds`.
    """

    def __init__(self, pid: int, seconds: float, asleep: float | None = None):
        self.pid, self.seconds, self.asleep = pid, seconds, seconds if asleep is None else asleep
        self.renew()

    def renew(self) -> None:
        """It has said something."""
        self._computed, self._waited, self._began = processor_time(self.pid), waited(self.pid), time.monotonic()

    def is_over(self) -> bool:
        slept = time.monotonic() - self._began
        if slept < min(self.seconds, self.asleep):
            return False                    # one QEMU has not computed more than that; its other threads do little
        if processor_time(self.pid) - self._computed >= self.seconds:
            return True
        return slept - (waited(self.pid) - self._waited) >= max(self.seconds, self.asleep) and not wants_to_run(self.pid)
