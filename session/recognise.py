"""The pytest plugin that tells listed issues of a kernel from unknown failures."""
import platform
import re
from collections.abc import Generator

import pytest
from xdist.workermanage import WorkerController

from report import chance, expected
from report.known import Issue, KnownIssuesError, candidates, known, listed, load
from report.results import message_of
from report.signature import signature
from session.runs import KernelRun
from session.session import KernelSession


class Recognise:
    """Marks reports before other plugins see them.

    A failure gets its `signature`. If it is listed for its kernel and matches a signature recorded for the entry, it becomes what pytest
    calls an expected failure, with the entry as `issue`; a listed test that passes gets the `issue` too. A listed failure with another
    signature remains a failure, with the entry as `listed`. A failure that is listed for other kernels only gets `candidates`: fixes that
    this kernel may lack.
    """

    def __init__(self) -> None:
        try:
            load(), expected.load(), chance.load()
        except (KnownIssuesError, expected.ExpectedError, chance.ChanceError) as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Tell the worker which failures are listed for its kernel: it collects less evidence for them."""
        session = node.config.pluginmanager.get_plugin("dsession")
        version = _version_of(session.run_of(node)) if isinstance(session, KernelSession) else _own_version()
        node.workerinput["listed"] = [pattern for issue in load() if issue.affects(version) for pattern in issue.patterns]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, object, object]:
        marks: dict[str, object] = {}
        version = _version(report)
        issues = listed(report.nodeid, version)
        if report.failed:
            seen = signature(message_of(report), str(report.longrepr or ""))
            issue = known(report.nodeid, version, seen)
            marks["signature"] = seen
            # The entry may be about a kernel that hangs; any other lost machine says nothing about the kernel.
            lost = getattr(report, "ending", "") == "lost" and not (issue and report.hung)
            if issue and not lost:
                marks |= {"issue": issue, "outcome": "skipped", "wasxfail": f"known issue: {issue}"}
            elif issues and not (lost and not report.hung):
                marks["listed"] = issues[0]
                report.sections.append(("signature differs from known issue", both_signatures(issues[0], seen)))
            elif not lost and (found := candidates(report.nodeid, version)):
                marks["candidates"] = found
                report.sections.append(("candidate fixes", "\n".join(found)))
        elif issues and report.passed and report.when == "call":
            marks["issue"] = issues[0]
        vars(report).update(marks)
        return (yield)


def both_signatures(issue: Issue, seen: str) -> str:
    """What a failure shows, and the recorded signatures of the issue listed for its test."""
    return "\n".join([f"{issue.id}: {issue}", f"seen:     {seen}", *(f"recorded: {each}" for each in issue.signatures)])


def _version(report: pytest.TestReport) -> str:
    """Of the kernel that the test ran on: its package's version, or its release."""
    if run := getattr(report, "kernel", None):
        return _version_of(run)
    return _own_version()


def _own_version() -> str:
    # Debian's release may name only its ABI, 6.1.0-47; the package's version is at the end of the build string.
    packaged = re.search(r"Debian (\S+)", platform.version())
    return packaged[1] if packaged else platform.release()


def _version_of(run: KernelRun) -> str:
    assert run.kernel
    return run.kernel.version or run.kernel.release
