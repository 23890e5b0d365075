"""The files of a run, all under one directory."""
from collections.abc import Sequence
from pathlib import Path

from report.junit import write_junit
from report.kcidb import write_kcidb
from report.ktap import write_ktap
from report.page import write_page
from report.results import KernelResult, Run, write_json, write_whole
from report.summary import summary
from report.verdict import Comparison


def write_files(directory: Path, run: Run, kernels: Sequence[KernelResult], comparisons: Sequence[Comparison]) -> None:
    """`run` is the "run" of results.json.  Each file is written whole or not at all.  Raises OSError."""
    write_json(directory / "results.json", run, kernels)
    write_junit(directory / "junit.xml", kernels)
    write_ktap(directory / "results.ktap", kernels)
    write_kcidb(directory / "kcidb.json", run, kernels)
    write_page(directory / "index.html", run, kernels, comparisons)
    write_whole(directory / "summary.md", summary(kernels, comparisons))
