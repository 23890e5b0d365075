"""Temporary directories that outlive nobody."""
import os
import subprocess
import tempfile
import uuid
import weakref
from pathlib import Path

from common.errors import is_full

A_FEW_PAGES = 16 << 10                      # bytes
# Removes the directory $0 when its standard input ends, whoever closed it.  Meanwhile a process that is about to end may add to it.
GUARD = """trap "" HUP INT TERM
read -r _
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    rm -rf -- "$0" 2>/dev/null && exit
    sleep 0.2
done"""


class GuardedDirectory:
    """A new directory in TMPDIR, as tempfile.TemporaryDirectory, which is removed even if this process is killed.  Raises OSError.

    A shell waits at the other end of a pipe that the kernel closes with this process.  It is there before the directory is.
    """

    def __init__(self, prefix: str = "kdrift-") -> None:
        self.name = str(Path(tempfile.gettempdir(), f"{prefix}{uuid.uuid4().hex[:8]}"))
        guard = subprocess.Popen(["/bin/sh", "-c", GUARD, self.name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, cwd="/", process_group=0)       # out of reach of Ctrl-C
        self._end = weakref.finalize(self, _end, guard)
        try:
            os.mkdir(self.name, 0o700)
        except OSError:
            self._end()
            raise

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *exc: object) -> None:
        self.cleanup()

    def cleanup(self) -> None:
        """Remove the directory now."""
        self._end()


def is_full_at(directory: Path) -> bool:
    """Whether the disk below the directory has no room for a few pages."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(A_FEW_PAGES))
            file.flush()
        return False
    except OSError as error:
        return is_full(error)


def _end(guard: "subprocess.Popen[bytes]") -> None:
    if guard.stdin:
        guard.stdin.close()
    guard.wait()
