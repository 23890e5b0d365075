"""The pytest plugin that gathers results, prints them and writes the report."""
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from common.status import Exit
from report.labels import numbered
from report.reading import ResultsError, read
from report.results import WORST, Collector, KernelResult, Run, outcome_of
from report.status import exit_status, of_pytest
from report.table import LEGEND, issue_lines, kernel_lines, measurement_table, nothing_judged, outcome_table, render
from report.verdict import compare_all
from session.progress import Progress
from session.runs import KernelRun
from session.session import KernelSession
from session.shared import Began, hidden_here, own_tests_named, write_shared
from session.suspected import Recorders, check_two_kernels, name_suspects, with_files, write_report
from vm.machine import MEMORY_MB
from vm.own import own_directories, shared_names

RUNNING = "running"
MINUTES = 2                                 # of exploring after a whole validation


class Report:
    """`runs` are the session's kernels; empty if the running kernel is tested."""

    def __init__(self, config: pytest.Config, runs: Sequence[KernelRun]):
        self.config = config
        self.runs = runs
        self.running = next(iter(config.option.labels), RUNNING)       # the running kernel's label
        self.collector = Collector()
        self.began = Began()
        self.endings: dict[str, list[pytest.TestReport]] = {}      # of machines, by the running test
        self.interrupted = False
        self.over = False
        if config.option.report:
            self._check_directory("--report", Path(config.option.report))
        own = shared_names(own_directories(config.args))
        self.baseline = self.read_baseline(config.option.baseline, [run.label for run in runs] or [self.running], own)
        self.folders: list[str] = []
        self.hidden = None
        self.suspects: list[str] = []
        if config.option.suspects:
            check_two_kernels("--suspects", runs)
            if not config.option.validate:
                raise pytest.UsageError("--suspects belongs to a comparison: use --validate")
        if config.option.report and not config.option.with_paths:
            self.hidden = hidden_here([path for run in runs if (path := run.path())], own)
        if config.option.console:
            self._check_directory("--console", Path(config.option.console))
        if config.option.bug_report:
            self._check_directory("--bug-report", Path(config.option.bug_report))
            from reproduce.leaks import of_this_machine
            self.private = of_this_machine()

    @staticmethod
    def _check_directory(option: str, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(f"{option} {directory}: {error.strerror}") from None

    @staticmethod
    def read_baseline(path: str | None, labels: list[str], own: Mapping[Path, str] = MappingProxyType({})) -> list[KernelResult]:
        """The first kernel of an earlier run, as the old kernel; its label is none of `labels`.  Raises pytest.UsageError."""
        if path is None:
            return []
        try:
            _run, kernels = read(Path(path))
        except ResultsError as error:
            raise pytest.UsageError(f"--baseline {error}") from None
        for kernel in kernels[:1]:
            if kernel.label in labels:
                kernel.label = numbered(f"{kernel.label} (baseline)", labels)
            own_tests_named(kernel, own)
        return kernels[:1]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        if not self.runs:
            return (yield)
        for run in self.runs:
            if run.error:
                self.config.get_terminal_writer().line(f"{run.label}: {run.error}")
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        states = {run.label: run for run in self.runs if run.kernel}
        interactive = reporter.isatty and self.config.option.verbose <= 0 and not self.config.option.shell
        machines = self._machines()

        def left(label: str) -> int:
            """Tests that are last in each shard have an outcome before the last shard runs them."""
            return len(set(machines.unrun_of(states[label])) - self.progress.outcomes[label].keys())

        with Progress(self.config.get_terminal_writer()._file, list(states), lambda label: states[label].state(), left,
                      interactive) as self.progress:
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        run = getattr(report, "kernel", None)
        label = run.label if run else self.running
        self.collector.add(label, report)
        if run:
            self._show(label, report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if run := getattr(report, "kernel", None):
            self.collector.add_uncollected(run.label, report)
            report.nodeid = f"{report.nodeid} on {run.label}"

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Called for -x and collection errors too, with other exceptions."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    def _show(self, label: str, report: pytest.TestReport) -> None:
        test = self.collector.tests[label, report.nodeid]
        ending = getattr(report, "ending", None)
        if report.when == "teardown" or ending:
            outcome = outcome_of(report) if ending else test.outcome
            self.progress.test_done(label, report.nodeid, outcome)
            if self.config.option.verbose > 0:
                times = f"{test.virtual_s:.3f} s" + (f" in {test.wall_s:.1f} s" if test.wall_s else "")
                self.config.get_terminal_writer().line(f"{label}  {outcome:8} {report.nodeid}  ({times})")
        # From here on pytest's own summary reads the report, and it knows nothing of kernels.
        report.nodeid = f"{report.nodeid} on {label}"
        path, line, name = report.location
        report.location = (path, line, f"{name} on {label}")
        if ending:
            self.endings.setdefault(report.nodeid, []).append(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
        """With kernels, the progress is ours; pytest keeps its counts."""
        if not getattr(report, "kernel", None):
            return None
        category: str = report.outcome if report.when == "call" or not report.passed else ""
        if not report.passed or hasattr(report, "issue"):
            category = outcome_of(report)
        return category, "", category.upper() if self.over else ""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.over = True
        option = self.config.option
        self.kernels = self._kernels(session)
        self.comparisons = compare_all([*self.baseline, *self.kernels], option.fail_on, option.exact) if option.validate else []
        self._confirm()
        if option.suspects and not self.interrupted:
            self.suspects = name_suspects(self.comparisons, with_files(self.runs), Recorders(option.slots or 1, option.devices),
                                          self.config.get_terminal_writer().line)
        self.explore()
        if session.exitstatus == pytest.ExitCode.INTERRUPTED and not self.interrupted:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.runs and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            status = exit_status([*self.baseline, *self.kernels], self.comparisons)
            # pytest's own status, which of_pytest() translates: its 2 is an interruption.
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED if status == Exit.USAGE else status
        elif session.exitstatus == pytest.ExitCode.OK and not any(kernel.ran for kernel in self.kernels):
            session.exitstatus = Exit.NOTHING_JUDGED
        if self.config.option.report:
            try:
                self._write(Path(self.config.option.report), of_pytest(session.exitstatus))
            except OSError as error:
                self.config.get_terminal_writer().line(f"--report {self.config.option.report}: {error.strerror}")
                session.exitstatus = session.exitstatus or Exit.LOST
        if self.config.option.bug_report:
            self._write_bug_reports(of_pytest(session.exitstatus))

    def _confirm(self) -> None:
        """Try each regression again, so that the verdict can say how certain it is."""
        option = self.config.option
        regressions = sum(len(comparison.regressions) for comparison in self.comparisons)
        if not regressions or not option.confirm or self.interrupted:
            return
        if option.append or option.memory != MEMORY_MB:
            self.config.get_terminal_writer().line("regressions are not retried with --append or --memory: the verdict stands on one run")
            return
        from rerun.regressions import Settings, confirm_regressions
        write = self.config.get_terminal_writer().line
        write(f"retrying {regressions} regression{'s' * (regressions > 1)} under {option.confirm} seeds on both kernels "
              "(--confirm 0 disables this)")
        sources = {run.label: run.kernel for run in self.runs if run.kernel and run.kernel.key and run.clock == "virtual"}
        words = ["--tables=all", *(["--mass"] if option.mass else [])]
        settings = Settings(option.confirm, option.slots or 1, option.devices, option.deadline, words)
        confirm_regressions(self.comparisons, sources, settings, write)

    def explore(self) -> None:
        """Look for differences that no test looks for."""
        option, write = self.config.option, self.config.get_terminal_writer().line
        minutes = option.explore_minutes
        if minutes is None:
            minutes = 0 if option.keyword or option.markexpr or option.file_or_dir else MINUTES
        sources = {run.label: run.kernel for run in self.runs if run.kernel and run.kernel.key and run.clock == "virtual"}
        if not minutes or not self.comparisons or self.interrupted or not sources:
            return
        if not option.slots or option.append or option.devices or option.memory != MEMORY_MB:
            write("nothing is explored without --slots, and with --append, --device or --memory")
            return
        from session.explored import explore_kernels
        try:
            explore_kernels(self.comparisons, sources, minutes, option.seed, option.slots, write,
                            Path(option.report) if option.report else None)
        except KeyboardInterrupt:
            write("exploring was interrupted")
            self.interrupted = True

    def _kernels(self, session: pytest.Session) -> list[KernelResult]:
        if not self.runs:
            import platform
            return [self._with_unrun(KernelResult(RUNNING, self.running, release=platform.release(), build=platform.version(),
                                                  tests=self.collector.of(self.running)),
                                     [item.nodeid for item in getattr(session, "items", ())])]
        found = []
        for run in self.runs:
            result = KernelResult(run.spec, run.label, error=run.error, clock=run.clock, seed=self.config.option.seed,
                                  tests=self.collector.of(run.label), counters=self.collector.counters.get(run.label, []))
            if run.kernel:
                result.release, result.package, result.version = run.kernel.release, run.kernel.package, run.kernel.version
                result.build, result.verified = run.kernel.build or None, run.kernel.verified
                facts = run.running()
                result.accel, result.qemu, result.boot_s = facts.get("accel", "none"), facts.get("qemu"), facts.get("boot_s")
                result.first_test_s, result.peak_mb = run.first_test_s(), run.peak_mb()
            found.append(self._with_unrun(result, self._machines().unrun_of(run)))
        return found

    @staticmethod
    def _with_unrun(result: KernelResult, chosen: list[str]) -> KernelResult:
        done = result.by_id()
        result.unrun = [name for name in chosen if name not in done]
        return result

    def _write(self, directory: Path, status: int) -> None:
        write_shared(directory, self._run(status), self.kernels, self.comparisons, self.hidden)
        if self.suspects:
            write_report(directory, self.suspects)

    def _write_bug_reports(self, status: int) -> None:
        from reproduce.folder import Settings, write_folders
        option = self.config.option
        settings = Settings(Path(option.bug_report), option.good, option.offline, option.mirror, self.private, option.replay,
                            option.allow_unverified)
        sources = {run.label: run.kernel for run in self.runs if run.kernel and run.kernel.key}     # a host's own kernel has no file
        write_folders(settings, self.kernels, sources, self._run(status), self.folders.append)

    def _run(self, status: int) -> Run:
        run: Run = {"started": self.began.date, "duration_s": self.began.lasted_s(),
                    "arguments": [str(each) for each in self.config.invocation_params.args],
                    "python": sys.version.split()[0], "exit_status": status}
        if self.interrupted:
            run["unfinished"] = "interrupted"
        elif any(kernel.unrun or kernel.error for kernel in self.kernels):
            run["unfinished"] = "not all tests ran on all kernels"
        return run

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.runs:
            self._summarize_kernels(terminalreporter)
        else:
            for line in (line for kernel in self.kernels for line in nothing_judged(kernel)):
                terminalreporter.write_line(line)
        if issues := issue_lines(self.kernels):
            terminalreporter.section("known issues", sep="-")
        for line in issues:
            terminalreporter.write_line(line)
        if self.folders:
            terminalreporter.section("bug reports", sep="-")
        for line in self.folders:
            terminalreporter.write_line(line)
        if self.comparisons:
            terminalreporter.section("verdict", sep="=")
        for comparison in self.comparisons:
            for line in comparison.lines():
                terminalreporter.write_line(line)

    def _summarize_kernels(self, terminalreporter: pytest.TerminalReporter) -> None:
        width, colour = terminalreporter._tw.fullwidth, terminalreporter._tw.hasmarkup
        for run in self.runs:
            for note in run.notes():
                terminalreporter.write_line(f"{run.label}: {note}")
        if self.endings:
            terminalreporter.section("machines that ended early", sep="-")
        for test, reports in self.endings.items():
            ending = max((outcome_of(report) for report in reports), key=WORST.__getitem__).upper()
            why, *console = str(reports[0].longrepr).splitlines()
            terminalreporter.write_line(f"{ending} {test}{' twice' if len(reports) > 1 else ''} - {why}")
            for line in console:
                terminalreporter.write_line(f"  {line}")
        if any(kernel.tests for kernel in self.kernels):
            terminalreporter.section("tests by kernel", sep="-")
            terminalreporter.write(render(outcome_table(self.kernels), width, colour))
            terminalreporter.write_line(LEGEND)
        if measured := measurement_table(self.kernels):
            terminalreporter.section("measurements", sep="-")
            terminalreporter.write(render(measured, width, colour))
        terminalreporter.section("kernels", sep="-")
        for line in kernel_lines(self.kernels):
            terminalreporter.write_line(line)

    def _machines(self) -> KernelSession:
        session = self.config.pluginmanager.get_plugin("dsession")
        assert isinstance(session, KernelSession)
        return session
