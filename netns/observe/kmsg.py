"""New records of the kernel log."""

import os
from collections.abc import Iterator
from typing import NamedTuple

# Severity as in syslog(2).
ERROR = 3


class LogRecord(NamedTuple):
    """`level` is 0 (emergency) to 7 (debug), `seconds` the kernel's timestamp."""

    level: int
    seconds: float
    text: str

    def __str__(self) -> str:
        """The record as dmesg prints it."""
        return f"[{self.seconds:12.6f}] {self.text}"


class KernelLog:
    """Begins at the current end of the log. Raises OSError if the log cannot be read.

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
        """Skip to the current end of the log."""
        for _ in self.records():
            pass

    def records(self) -> Iterator[LogRecord]:
        """The records since the last call."""
        while True:
            try:
                record = os.read(self._descriptor, 8192).decode(errors="replace")
            except BlockingIOError:
                return
            except BrokenPipeError:
                yield LogRecord(ERROR, 0, "(older lines were overwritten)")
                continue
            prefix, _, rest = record.partition(";")
            priority, _sequence, microseconds, *_ = prefix.split(",")
            yield LogRecord(int(priority) & 7, int(microseconds) / 1e6, rest.splitlines()[0])
