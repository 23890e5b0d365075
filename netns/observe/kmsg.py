"""The kernel's log from now on."""

import os
from collections.abc import Iterator
from typing import NamedTuple

# Severities as syslog(2) numbers them.
ERROR = 3


class Record(NamedTuple):
    """`level` is 0 (emergency) to 7 (debug), `seconds` are those of the kernel's own clock."""

    level: int
    seconds: float
    text: str

    def __str__(self) -> str:
        """As dmesg shows it."""
        return f"[{self.seconds:12.6f}] {self.text}"


class KernelLog:
    """Begins where the log ends now. Raises OSError where it may not be read.

    Source: Documentation/ABI/testing/dev-kmsg.
    """

    def __init__(self) -> None:
        self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def __enter__(self) -> "KernelLog":
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._descriptor)

    def skip(self) -> None:
        """Go to where the log ends now."""
        for _ in self.records():
            pass

    def records(self) -> Iterator[Record]:
        """Those that came since the last call."""
        while True:
            try:
                record = os.read(self._descriptor, 8192).decode(errors="replace")
            except BlockingIOError:
                return
            except BrokenPipeError:
                yield Record(ERROR, 0, "(older lines were overwritten)")
                continue
            prefix, _, rest = record.partition(";")
            priority, _sequence, microseconds, *_ = prefix.split(",")
            yield Record(int(priority) & 7, int(microseconds) / 1e6, rest.splitlines()[0])
