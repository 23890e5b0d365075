"""How long a process may be silent, independent of the host's other load."""
import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used; 0 if it has ended.  Source: proc_pid_stat(5), utime and stime."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / _TICKS


def waited(pid: int) -> float:
    """Seconds that the threads of a process have waited for a processor; 0 if the host's kernel does not count them.

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
    """Whether a thread of a process is running or runnable.  waited() counts a wait only when it is over."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            if Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "R":
                return True
    except OSError:
        pass
    return False


class Patience:
    """`seconds` that a process computes or sleeps in silence.

    Time waiting for a processor does not count, so a busy host changes nothing: what counts is processor time (a guest in a
    loop, or one that skips from timer to timer), or wall time minus the waiting (a guest without any timer, a stopped process).
    The latter ends it only after `asleep` seconds, by default `seconds`.
    """

    def __init__(self, pid: int, seconds: float, asleep: float | None = None):
        self.pid, self.seconds, self.asleep = pid, seconds, seconds if asleep is None else asleep
        self.renew()

    def renew(self) -> None:
        """Start again: the process has said something."""
        self._computed, self._waited, self._began = processor_time(self.pid), waited(self.pid), time.monotonic()

    def is_over(self) -> bool:
        slept = time.monotonic() - self._began
        if slept < min(self.seconds, self.asleep):
            return False                    # one QEMU cannot have computed longer; its other threads do little
        if processor_time(self.pid) - self._computed >= self.seconds:
            return True
        return slept - (waited(self.pid) - self._waited) >= max(self.seconds, self.asleep) and not wants_to_run(self.pid)
