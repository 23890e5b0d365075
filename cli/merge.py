"""`./kdrift merge FILE[=LABEL,...]... [--report DIR] [--validate]`: one run out of those of separate jobs.

Kernels stand in the order of the files; tests of one kernel that were spread over several files come together. Labels rename the
kernels of a file, in their order. Exit status: as if all had been one run; 2 for a file that cannot be used, for two kernels of one
label, or a test that two files have on one kernel.
"""
import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cli.refusal import refuse
from report.chance import ChanceError
from report.expected import ExpectedError
from report.files import write_files
from report.labels import LabelError, check_label
from report.reading import ResultsError, read
from report.results import KernelResult, Run
from report.status import exit_status
from report.table import issue_lines, kernel_lines
from report.verdict import compare_all, fail_on


def run(options: argparse.Namespace) -> int:
    try:
        failing = fail_on(options.fail_on)
    except ValueError as error:
        return refuse(f"--fail-on: {error}")
    try:
        whole, kernels = merge(options.files)
        if options.report:
            options.report.mkdir(parents=True, exist_ok=True)
    except ResultsError as error:
        return refuse(error)
    except OSError as error:
        return refuse(f"--report {options.report}: {error.strerror}")
    try:
        comparisons = compare_all(kernels, failing, options.exact) if options.validate else []
    except (ExpectedError, ChanceError) as error:
        return refuse(error)
    whole["exit_status"] = int(exit_status(kernels, comparisons))
    try:
        if options.report:
            write_files(options.report, whole, kernels, comparisons)
    except OSError as error:
        return refuse(f"--report {options.report}: {error.strerror}")
    for line in (*kernel_lines(kernels), *issue_lines(kernels), *(line for comparison in comparisons for line in comparison.lines())):
        print(line)
    return whole["exit_status"]


def merge(files: Sequence[str | Path]) -> tuple[Run, list[KernelResult]]:
    """One run and its kernels.  `files` are paths, each with labels or without.  Raises ResultsError."""
    runs: list[Run] = []
    kernels: dict[str, KernelResult] = {}
    names: list[str] = []
    for word in files:
        path, labels = _split(os.fspath(word))
        names.append(path.name)
        run, found = read(path)
        runs.append(run)
        _rename(path, found, labels)
        for kernel in found:
            _join(kernels.setdefault(kernel.label, kernel), kernel, path)
    whole: Run = {"started": min(run["started"] for run in runs), "duration_s": round(sum(run["duration_s"] for run in runs), 3),
                  "arguments": ["merge", *names], "python": sys.version.split()[0], "exit_status": 0}
    if early := [f"{name}: {run['unfinished']}" for name, run in zip(names, runs, strict=True) if run.get("unfinished")]:
        whole["unfinished"] = "; ".join(early)
    return whole, list(kernels.values())


def _split(word: str) -> tuple[Path, list[str]]:
    """A file and the labels of its kernels.  A path may hold a "="; labels have no "/" here."""
    name, equals, labels = word.rpartition("=")
    if not equals or "/" in labels or os.path.lexists(word):
        return Path(word), []
    return Path(name), labels.split(",")


def _rename(path: Path, kernels: list[KernelResult], labels: list[str]) -> None:
    if labels and len(labels) != len(kernels):
        raise ResultsError(f"{path}: {len(labels)} labels for {len(kernels)} kernels ({', '.join(kernel.label for kernel in kernels)})")
    try:
        for kernel, label in zip(kernels, labels, strict=bool(labels)):
            kernel.label = check_label(label)
    except LabelError as error:
        raise ResultsError(f"{path}: {error}") from None
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise ResultsError(f"{path}: label {min(twice)!r} stands there twice")


def _join(kernel: KernelResult, more: KernelResult, path: Path) -> None:
    if more is kernel:
        return
    if (more.release, more.version) != (kernel.release, kernel.version) or more.build and kernel.build and more.build != kernel.build:
        raise ResultsError(f"{path}: {more.label} is another kernel ({_what(more)}) than in another file ({_what(kernel)}): "
                           f"give it another label, {path}=LABEL")
    if twice := kernel.by_id().keys() & more.by_id().keys():
        raise ResultsError(f"{path}: {more.label} has {min(twice)} in another file as well")
    kernel.tests += more.tests
    done = kernel.by_id()                   # what one job left out another may have run
    kernel.unrun = [name for name in dict.fromkeys([*kernel.unrun, *more.unrun]) if name not in done]
    kernel.error = kernel.error or more.error


def _what(kernel: KernelResult) -> str:
    return f"{kernel.version or kernel.release or 'not had'}" + (f", build {kernel.build[:40]}" if kernel.build else "")
