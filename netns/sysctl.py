"""Sysctls of the machine's first network namespace: those that some kernels have for all namespaces together."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import MissingFeature


@contextmanager
def everywhere(name: str, value: int) -> Iterator[None]:
    """The sysctl has this value for the time of the block. Raises MissingFeature where this process may not write
    it."""
    file = Path("/proc/sys", name.replace(".", "/"))
    try:
        before = file.read_text()
        file.write_text(str(value))
    except OSError as error:
        raise MissingFeature(f"{name} is not of the network namespace here, and cannot be written: {error}") from error
    try:
        yield
    finally:
        file.write_text(before)
