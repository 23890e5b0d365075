"""Writes the reports of a session so that they can be shared."""
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.project import PROJECT
from kernels.cache import default_root
from report.files import write_files
from report.private import Hidden
from report.results import KernelResult, Run
from report.verdict import Comparison
from reproduce.leaks import own_names


def hidden_here(paths: Iterable[Path] = ()) -> Hidden:
    """What reports leave out of this machine; `paths` are those of kernels. In private namespaces its names may be others."""
    places = {str(path.parent): "." for path in paths} | {str(Path.cwd()): ".", os.path.expanduser("~"): "~", str(default_root()): "cache",
                                                          tempfile.gettempdir(): "tmp", os.path.realpath(PROJECT): "kdrift"}
    return Hidden({**places, str(PROJECT): "kdrift"}, own_names())


def write_shared(directory: Path, run: Run, kernels: Sequence[KernelResult], comparisons: Sequence[Comparison],
                 hidden: Hidden | None) -> None:
    """Write the files of a run without what is `hidden`. Raises OSError."""
    if hidden:
        run, (kernels, comparisons) = hidden.run(run), hidden.copied((kernels, comparisons))
    write_files(directory, run, kernels, comparisons)
