"""The pytest plugin that tells a listed issue of a kernel from a failure nobody knows."""
import platform
import re

import pytest
from xdist.workermanage import WorkerController

from report import chance, expected
from report.known import Issue, KnownIssuesError, candidates, known, listed, load
from report.results import message_of
from report.signature import signature
from session.session import KernelRun, KernelSession


class Recognise:
    """Marks reports, before anybody else sees them.

    A failure gets its `signature`. Of one that is listed for its kernel, and shows what is recorded of the entry, it makes what pytest
    calls an expected failure, with the entry as `issue`; a test that passes although it is listed gets the `issue` too. A failure that
    shows something else stays one, with the entry as `listed`. A failure that is listed for other kernels alone gets its `candidates`:
    fixes that this kernel may lack.
    """

    def __init__(self) -> None:
        try:
            load(), expected.load(), chance.load()
        except (KnownIssuesError, expected.ExpectedError, chance.ChanceError) as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        """The worker is told which failures are listed for its kernel: it need not look far for their evidence."""
        session = node.config.pluginmanager.get_plugin("dsession")
        version = _version_of(session.run_of(node)) if isinstance(session, KernelSession) else _own_version()
        node.workerinput["listed"] = [pattern for issue in load() if issue.affects(version) for pattern in issue.patterns]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport):
        version = _version(report)
        issues = listed(report.nodeid, version)
        if report.failed:
            report.signature = signature(message_of(report), str(report.longrepr or ""))
            issue = known(report.nodeid, version, report.signature)
            # A kernel that hangs may be what the entry is about; another end of the machine says nothing of the kernel.
            lost = getattr(report, "ending", "") == "lost" and not (issue and report.hung)
            if issue and not lost:
                report.issue, report.outcome, report.wasxfail = issue, "skipped", f"known issue: {issue}"
            elif issues and not (lost and not report.hung):
                report.listed = issues[0]
                report.sections.append(("listed for another reason", other_reason(issues[0], report.signature)))
            elif not lost and (found := candidates(report.nodeid, version)):
                report.candidates = found
                report.sections.append(("candidate fixes", "\n".join(found)))
        elif issues and report.passed and report.when == "call":
            report.issue = issues[0]
        return (yield)


def other_reason(issue: Issue, seen: str) -> str:
    """What a failure shows, and what was recorded of the issue that is listed for its test."""
    return "\n".join([f"{issue.id}: {issue}", f"shows:    {seen}", *(f"recorded: {each}" for each in issue.signatures)])


def _version(report: pytest.TestReport) -> str:
    """Of the kernel that the test ran on: its package's, or its own."""
    if run := getattr(report, "kernel", None):
        return _version_of(run)
    return _own_version()


def _own_version() -> str:
    # Debian's release may be that of its ABI alone, 6.1.0-47; the package's version stands at the end of the build's.
    packaged = re.search(r"Debian (\S+)", platform.version())
    return packaged[1] if packaged else platform.release()


def _version_of(run: KernelRun) -> str:
    return run.kernel.version or run.kernel.release
