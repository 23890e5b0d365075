"""`./kdrift merge FILE... [--report DIR] [--validate]`: one run out of those of separate jobs.

Kernels stand in the order of the files; tests of one kernel that were spread over several files come together. Exit status: as if
all had been one run; 2 for a file that cannot be used, or a test that two files have on one kernel.
"""
import argparse
import sys
from pathlib import Path

from report.command import USAGE
from report.files import write_files
from report.reading import ResultsError, read
from report.results import KernelResult
from report.table import issue_lines, kernel_lines
from report.verdict import NO_TESTS, compare_all, exit_status


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="kdrift merge", description="join results files of separate runs")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="results.json of a run")
    parser.add_argument("--report", metavar="DIR", type=Path, help="write the reports of the whole there")
    parser.add_argument("--validate", action="store_true", help="compare the kernels with the first one and print a verdict")
    options = parser.parse_args(arguments)
    try:
        run, kernels = merge(options.files)
        if options.report:
            options.report.mkdir(parents=True, exist_ok=True)
    except ResultsError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"--report {options.report}: {error.strerror}")
    comparisons = compare_all(kernels) if options.validate else []
    run["exit_status"] = USAGE if (status := exit_status(kernels, comparisons)) == NO_TESTS else status
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
    return whole, list(kernels.values())


def _join(kernel: KernelResult, more: KernelResult, path: Path) -> None:
    if more is kernel:
        return
    if (more.release, more.version) != (kernel.release, kernel.version):
        raise ResultsError(f"{path}: {more.label} is {more.version or more.release} here and {kernel.version or kernel.release} in another file")
    if twice := kernel.by_id().keys() & more.by_id().keys():
        raise ResultsError(f"{path}: {more.label} has {min(twice)} in another file as well")
    kernel.tests += more.tests
    kernel.error = kernel.error or more.error


def _refuse(why: str) -> int:
    print(f"kdrift: {why}", file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
