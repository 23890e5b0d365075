"""Locks on files by flock(2), which the kernel releases when their holder dies."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def flocked(path: Path, shared: bool = False, wait: bool = True,
            busy: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a lock on the file `path`, created if missing; a holder may unlink it.

    `busy` is called once before waiting for the lock. Raises BlockingIOError if it is taken and `wait` is false.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                busy()
                fcntl.flock(descriptor, kind)
            # A lock counts only if `path` still names the locked file: the last holder may have unlinked it.
            if _leads_to(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
