"""Writes the reports of a session so that they can be shared."""
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from common.project import PROJECT
from kernels.cache import default_root
from report.files import write_files
from report.private import Hidden
from report.results import KernelResult, Run
from report.verdict import Comparison
from reproduce.leaks import own_names


class Began:
    """The moment at which this is made, by the clock on the wall; how long ago it is does not depend on that, which may be set."""

    def __init__(self) -> None:
        self.date, self._at = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()

    def lasted_s(self) -> float:
        return round(time.monotonic() - self._at, 3)


def hidden_here(paths: Iterable[Path] = (), own: Mapping[Path, str] = MappingProxyType({})) -> Hidden:
    """What reports leave out of this machine; `paths` are those of kernels, `own` the names of directories with tests of the user's own.
    In private namespaces its names may be others."""
    places = {str(path.parent): "." for path in paths} | {str(Path.cwd()): ".", os.path.expanduser("~"): "~", str(default_root()): "cache",
                                                          tempfile.gettempdir(): "tmp", os.path.realpath(PROJECT): "kdrift"}
    return Hidden({**places, str(PROJECT): "kdrift", **{str(path): name for path, name in own.items()}}, own_names())


def own_tests_named(kernel: KernelResult, own: Mapping[Path, str]) -> None:
    """Give the user's own tests in an earlier report the ids that they have in a session."""
    for test in kernel.tests:
        for path, name in own.items():
            if test.id.startswith(f"{name}/"):
                test.id = f"{path}{test.id.removeprefix(name)}"


def write_shared(directory: Path, run: Run, kernels: Sequence[KernelResult], comparisons: Sequence[Comparison],
                 hidden: Hidden | None) -> None:
    """Write the files of a run without what is `hidden`. Raises OSError."""
    if hidden:
        run, (kernels, comparisons) = hidden.run(run), hidden.copied(kernels, comparisons)
    write_files(directory, run, kernels, comparisons)
