"""The exit status of a run, from its results."""
from collections.abc import Sequence

from pytest import ExitCode

from common.errors import is_full
from common.status import Bisect, Exit
from report.results import KernelResult
from report.verdict import Comparison


def of_pytest(code: int) -> int:
    """The exit status for a pytest.ExitCode: pytest's 2 is an interruption, ours is wrong usage."""
    ours: dict[int, int] = {ExitCode.INTERRUPTED: Exit.INTERRUPTED, ExitCode.INTERNAL_ERROR: Exit.LOST, ExitCode.USAGE_ERROR: Exit.USAGE,
                            ExitCode.NO_TESTS_COLLECTED: Exit.USAGE}
    return int(ours.get(code, code))


def exit_status(kernels: Sequence[KernelResult], comparisons: Sequence[Comparison] = ()) -> Exit:
    """Of a whole run, by priority: regressions, or failures if nothing was compared; kernels that did not boot; tests lost or not run."""
    if comparisons:
        worse = not all(comparison.ok for comparison in comparisons)
    else:
        worse = any(kernel.count("failed", "crashed") for kernel in kernels)
    if worse:
        return Exit.REGRESSION
    if any(kernel.error for kernel in kernels):
        return Exit.LOST if any(is_full(kernel.error) for kernel in kernels) else Exit.NOT_BOOTED
    if any(kernel.count("lost") or kernel.tests and kernel.unrun for kernel in kernels):
        return Exit.LOST
    if not any(kernel.tests or kernel.unrun for kernel in kernels[-1:]):
        return Exit.USAGE                   # no test was chosen
    # Each pair was to be judged: one that says nothing is no success, however well the others did. Without a comparison a kernel may
    # lack everything that is tested, as long as another has it; table.kernel_lines() says so.
    judged = all(comparison.judged for comparison in comparisons) if comparisons else any(kernel.ran for kernel in kernels)
    return Exit.OK if judged else Exit.NOTHING_JUDGED


def bisect_status(status: int, kernels: Sequence[KernelResult], compared: bool) -> int:
    """The status for git bisect run: 0 if the kernel passed, 1 if it failed, 125 if nothing is known about it.

    Usage errors, a full disk and interruptions stop the bisection. Without a comparison a known issue is a failure too: it may be the one
    sought. A test that passed only after its machine was lost is no pass; a file that could not be collected is no failure.
    """
    if status == Exit.INTERRUPTED:
        return Exit.INTERRUPTED
    if status == Exit.USAGE or any(kernel.error and is_full(kernel.error) for kernel in kernels):
        return Exit.BISECT_USAGE
    tests = [test for kernel in kernels for test in kernel.tests]
    if any("::" not in test.id and test.outcome == "failed" for test in tests):
        return Bisect.SKIP
    failed = status == Exit.REGRESSION or not compared and any(test.outcome == "known" for test in tests)
    if failed:
        return Bisect.BAD
    return Bisect.GOOD if status == Exit.OK and not any("lost" in test.attempts for test in tests) else Bisect.SKIP
