"""From what a command did on each kernel to the results that every run has."""
from collections.abc import Sequence
from pathlib import Path

from command.lines import COLOUR, SubTest, read_lines
from command.session import CommandRun
from common.errors import is_full
from common.status import Exit
from report.known import candidates, known, listed
from report.results import KernelResult, TestResult
from report.signature import signature
from session.runs import KernelRun
from vm.command import BOOTED, ERRORS, OUTPUT, TIMED_OUT
from vm.machine import plain

LAST_LINES = 40                             # of the output, with a failure
WHOLE = "command"                           # the result of a command that reports none, or that failed beside what it reports
FAILURES = ("failed", "crashed")
SKIPPED = 4                                 # the status of a selftest that cannot run (tools/testing/selftests/kselftest.h, KSFT_SKIP)


def results_of(kernel: KernelRun, runs: Sequence[CommandRun], seed: int, selftests: bool = False) -> KernelResult:
    """A kernel's results.  With `selftests`, exit status 4 is a skip."""
    facts = kernel.running()
    result = KernelResult(kernel.spec, kernel.label, error=kernel.error, clock=kernel.clock, seed=seed)
    if kernel.kernel:
        result.release, result.package, result.version = kernel.kernel.release, kernel.kernel.package, kernel.kernel.version
        result.build = kernel.kernel.build or None
        result.accel, result.qemu, result.boot_s = facts.get("accel", "none"), facts.get("qemu"), facts.get("boot_s")
        result.peak_mb = kernel.peak_mb()
    for run in runs:
        if not kernel.error:
            result.tests += run_results(run, selftests)
    return result


def recognise(test: TestResult, version: str) -> None:
    """Tell a listed issue of the kernel from an unknown failure, as session.recognise does for tests."""
    issues = listed(test.id, version)
    if test.outcome == "passed" and issues:
        test.outcome, test.issue = "fixed", issues[0].id
    if test.outcome not in FAILURES:
        return
    if issue := known(test.id, version, test.signatures[0]):
        test.outcome, test.issue = "known", issue.id
    elif issues:
        test.listed = str(issues[0])
    else:
        test.candidates = candidates(test.id, version)


def run_results(run: CommandRun, selftests: bool) -> list[TestResult]:
    """The results of one command, and one of the whole where they do not say how it ended."""
    text, errors = lines_of(run.output[OUTPUT]), lines_of(run.output[ERRORS])
    found = read_lines([*text, *errors])
    tests = [TestResult(f"{run.task.name}::{name}", test.outcome, message=test.message, skip="host" if test.outcome == "skipped" else "")
             for name, test in found.tests.items()]
    whole = whole_command(run, selftests)
    if not tests or whole.outcome != "passed" and not (whole.outcome == "failed" and any(test.outcome == "failed" for test in tests)):
        tests.append(TestResult(f"{run.task.name}::{WHOLE}", whole.outcome, message=whole.message,
                                skip="host" if whole.outcome == "skipped" else ""))
    seconds = run.outcome.get("seconds", 0.0)
    for test in tests:
        test.began_at = float(BOOTED)
        if test.outcome in ("failed", "crashed", "lost"):
            test.traceback = "\n".join([*run.end.get("console", []), *text[-LAST_LINES:]])
            test.message = test.message or f"{test.id.partition('::')[2]} failed"
        if test.outcome in FAILURES:
            crash = f"the kernel crashed: {test.message}\n{test.traceback}"
            test.signatures = [signature(crash if test.outcome == "crashed" else test.message)]
    # Nobody knows when each of them began.
    tests[-1].virtual_s, tests[-1].wall_s, tests[-1].measurements = seconds, round(run.wall_s, 3), found.measurements
    return tests


def lines_of(output: bytes) -> list[str]:
    """Without colours; what else a terminal would obey is escaped, since names and reasons in results are printed."""
    return [plain(COLOUR.sub("", line)) for line in output.decode(errors="replace").splitlines()]


def whole_command(run: CommandRun, selftests: bool) -> SubTest:
    """How the command itself ended."""
    if end := run.end:
        return SubTest((WHOLE,), "crashed" if end["end"] == "crashed" else "lost", end["why"])
    status = run.outcome["status"]
    if run.complaints:
        return SubTest((WHOLE,), "failed", f"the kernel complains: {run.complaints[0]}")
    said, why = run.task.unfit
    if said and status and said.encode() in run.output[OUTPUT] + run.output[ERRORS]:
        return SubTest((WHOLE,), "skipped", why)
    if selftests and status == SKIPPED:
        return SubTest((WHOLE,), "skipped", "exit status 4")
    if status == TIMED_OUT and run.task.timeout:
        return SubTest((WHOLE,), "failed", f"timed out after {run.task.timeout:g} s of the guest's time")
    return SubTest((WHOLE,), "failed" if status else "passed", f"exit status {status}" if status else "")


def status_of_runs(runs: Sequence[CommandRun]) -> int:
    """The command's own status; of several the worst: a kernel that could not be had, a machine that was lost, a crash, the highest."""
    if errors := [run.kernel.error for run in runs if run.kernel.error]:
        return Exit.LOST if any(map(is_full, errors)) else Exit.NOT_BOOTED
    ends = {run.end.get("end") for run in runs}
    if "lost" in ends:
        return Exit.LOST
    if "crashed" in ends:
        return Exit.REGRESSION
    worst = max((int(run.outcome["status"]) for run in runs), default=int(Exit.OK))
    return worst or (Exit.REGRESSION if any(run.complaints for run in runs) else Exit.OK)


def name_of(words: Sequence[str]) -> str:
    """A command's name in results: the same wherever its file is."""
    return " ".join([Path(words[0]).name, *words[1:]])[:120]
