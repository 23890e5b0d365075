"""`./kdrift merge FILE... [--report DIR] [--validate]`: one run out of those of separate jobs.

Kernels stand in the order of the files; tests of one kernel that were spread over several files come together. Exit status: as if
all had been one run; 2 for a file that cannot be used, or a test that two files have on one kernel.
"""
import argparse
import sys
from pathlib import Path

from report.files import write_files
from report.reading import ResultsError, read
from report.results import KernelResult
from report.table import issue_lines, kernel_lines
from report.status import Exit, exit_status
from report.verdict import FAIL_BY_DEFAULT, compare_all, fail_on


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="kdrift merge", description="join results files of separate runs")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="results.json of a run")
    parser.add_argument("--report", metavar="DIR", type=Path, help="write the reports of the whole there")
    parser.add_argument("--validate", action="store_true", help="compare the kernels with the first one and print a verdict")
    parser.add_argument("--fail-on", metavar="CLASS,...", type=_classes, default=FAIL_BY_DEFAULT,
                        help="with --validate: what makes the exit status 1 (default: regression,gone)")
    parser.add_argument("--exact", action="store_true", help="with --validate: compare measurements without their tolerances")
    options = parser.parse_args(arguments)
    try:
        run, kernels = merge(options.files)
        if options.report:
            options.report.mkdir(parents=True, exist_ok=True)
    except ResultsError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"--report {options.report}: {error.strerror}")
    comparisons = compare_all(kernels, options.fail_on, options.exact) if options.validate else []
    run["exit_status"] = int(exit_status(kernels, comparisons))
    if options.report:
        write_files(options.report, run, kernels, comparisons)
    for line in (*kernel_lines(kernels), *issue_lines(kernels), *(line for comparison in comparisons for line in comparison.lines())):
        print(line)
    return run["exit_status"]


def merge(files: list[Path]) -> tuple[dict, list[KernelResult]]:
    """One run and its kernels.  Raises ResultsError."""
    runs, kernels = [], {}
    for path in files:
        run, found = read(path)
        runs.append(run)
        for kernel in found:
            _join(kernels.setdefault(kernel.label, kernel), kernel, path)
    whole = {"started": min(run["started"] for run in runs), "duration_s": round(sum(run["duration_s"] for run in runs), 3),
             "arguments": ["merge", *(path.name for path in files)], "python": sys.version.split()[0], "exit_status": 0}
    if early := [f"{path.name}: {run['unfinished']}" for path, run in zip(files, runs, strict=True) if run.get("unfinished")]:
        whole["unfinished"] = "; ".join(early)
    return whole, list(kernels.values())


def _join(kernel: KernelResult, more: KernelResult, path: Path) -> None:
    if more is kernel:
        return
    if (more.release, more.version) != (kernel.release, kernel.version):
        raise ResultsError(f"{path}: {more.label} is {more.version or more.release} here and {kernel.version or kernel.release} in another file")
    if twice := kernel.by_id().keys() & more.by_id().keys():
        raise ResultsError(f"{path}: {more.label} has {min(twice)} in another file as well")
    kernel.tests += more.tests
    done = kernel.by_id()                   # what one job left out another may have run
    kernel.unrun = [name for name in dict.fromkeys([*kernel.unrun, *more.unrun]) if name not in done]
    kernel.error = kernel.error or more.error


def _classes(text: str) -> tuple[str, ...]:
    try:
        return fail_on(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _refuse(why: str) -> int:
    print(f"kdrift: {why}", file=sys.stderr)
    return Exit.USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
