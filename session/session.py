"""A pytest session over kernels: one virtual machine per kernel as a pytest-xdist worker."""
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote, split

import execnet
import pytest
from execnet.gateway import RInfo
from xdist.dsession import DSession
from xdist.workermanage import NodeManager, WorkerController

from common.errors import CacheError
from common.project import PROJECT
from common.status import Exit
from kernels.cache import Cache
from report.labels import same_kernels
from session import worker
from session.runs import KernelRun
from session.scheduler import KernelScheduling
from vm.image import python_command
from vm.job import Event, Events, Job
from vm.own import own_directories
from vm.payload import pack_sources
from vm.qemu import kvm_trouble

ENDING = 10                                 # seconds that a launcher may take to end
# Options whose value a guest does not need, and options whose presence alone matters to it.
HOST_OPTIONS = ("--good", "--kernel", "--builder", "--slots", "--deadline", "--mirror", "--device", "--ssh", "--ssh-config", "--seed",
                  "--confirm", "--fail-on", "--label")
HOST_PATHS = ("--report", "--bug-report", "--baseline")
MOST_STARTS = 2                             # machines of one kernel that may end before a test has run


class KernelSession(DSession):
    """pytest-xdist's session, with kernels as workers and a policy for machines that end early.

    A test whose machine crashed or was lost runs once more in a restored machine, and the remaining tests follow there.
    """

    boots_here = True                       # the machines run on this machine's QEMU
    directory: Path                         # of the session, from its start on
    terminal: pytest.TerminalReporter | None

    def __init__(self, config: pytest.Config, runs: list[KernelRun]):
        super().__init__(config)
        if self.terminal:                   # progress is shown by kernel, see session.progress
            config.pluginmanager.unregister(self.trdist)
            self.terminal = None
        self.runs = {run.number: run for run in runs}
        self.started: dict[tuple[str, str], float] = {}
        self.uncollected: set[tuple[str, str]] = set()
        self.launchers: list[subprocess.Popen[bytes]] = []

    def unrun_of(self, run: KernelRun) -> list[str]:
        """Chosen tests that did not run on a kernel."""
        return self.sched.unrun(run.number) if self.sched else []

    def run_of(self, node: WorkerController) -> KernelRun:
        return self.runs[node.gateway.spec.kernel]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session
        try:
            directory = tempfile.TemporaryDirectory(prefix="kdrift-", ignore_cleanup_errors=True)
            self.config.add_cleanup(directory.cleanup)
            self.directory = Path(directory.name)
            with Cache(say=lambda line: None) as cache:
                (self.directory / "sources.tar").write_bytes(pack_sources(cache, own_directories(self.config.args)))
        except (OSError, CacheError) as error:
            pytest.exit(f"cannot prepare the session: {error}", Exit.LOST)
        runs = list(self.runs.values())
        for line in same_kernels([run.label for run in runs], [run.named() for run in runs]):
            self.config.get_terminal_writer().line(line)
        option = self.config.option
        accel = "kvm" if option.clock == "real" else "tcg"
        if accel == "kvm" and self.boots_here and (trouble := kvm_trouble()):
            self.config.get_terminal_writer().line(f"{trouble}: falling back to emulation")
            accel = "tcg"
        if option.shell and option.slots > 1:
            self.config.get_terminal_writer().line("--shell runs one machine at a time (--slots 1)")
        slots = 1 if option.shell else option.slots
        self.job = partial(Job, clock=option.clock, accel=accel, slots=slots, fresh_boot=option.fresh_boot, devices=option.devices,
                           deadline=option.deadline, python=python_command(), cwd=str(self.config.invocation_params.dir),
                           session=str(self.directory), owner=os.getpid(), seed=option.seed)
        os.environ["PYTHONPATH"] = str(PROJECT)     # for the launchers; execnet would wait for an `env:` in the gateway's specification
        self.wanted = [run for run in self.runs.values() if run.kernel]
        self.nodemanager = NodeManager(self.config, specs=[])
        self.nodemanager.testrunuid = "kdrift"      # xdist's own differs in each run, and guests would see it
        for run in self.wanted:
            self.start_machine(run)

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        for launcher in self.launchers:
            launcher.terminate()            # a launcher with a machine ends it at once
        super().pytest_sessionfinish()
        for launcher in self.launchers:
            try:
                launcher.wait(ENDING)
            except subprocess.TimeoutExpired:
                launcher.kill()             # the machine dies with it
                launcher.wait()
        for run in self.runs.values():
            for events in run.machines:
                events.keep()

    def start_machine(self, run: KernelRun) -> None:
        """Start a worker for a kernel; it answers once its machine has a slot and runs."""
        name = f"{run.number}-{len(run.machines)}"
        events = Events(self.directory / f"{name}.events")
        run.machines.append(events)
        job = self.directory / f"{name}.job"
        module = self.write_job(run, events, job)
        spec = execnet.XSpec(f"popen//python={quote(sys.executable)} -m {module} {quote(str(job))}//kernel={run.number}")
        self.nodemanager.group.allocate_id(spec)
        with guest_view(self.config):
            node = self.nodemanager.setup_node(spec, self.queue.put)
        self.launchers.append(node.gateway._io.popen)
        self._active_nodes.add(node)

    def write_job(self, run: KernelRun, events: Events, job: Path) -> str:
        """Write the launcher's job.  Returns the launcher's module."""
        assert run.kernel
        self.job(kernel=run.kernel, events=str(events.path)).write(job)
        return "vm.launcher"

    @pytest.hookimpl
    def pytest_xdist_newgateway(self, gateway: execnet.Gateway) -> None:
        # xdist would wait for each worker's own answer, one machine after another.
        gateway._cache_rinfo = RInfo({"executable": sys.executable, "version_info": tuple(sys.version_info), "platform": sys.platform,
                                      "cwd": str(PROJECT), "pid": 0})

    @pytest.hookimpl
    def pytest_xdist_getremotemodule(self) -> object:
        return worker

    @pytest.hookimpl
    def pytest_xdist_make_scheduler(self) -> KernelScheduling:
        return KernelScheduling([run.number for run in self.wanted])

    @pytest.hookimpl
    def pytest_runtestloop(self) -> bool:
        return super().pytest_runtestloop() if self.wanted else True

    def restorable(self, run: KernelRun) -> bool:
        """Whether another machine can replace one that is no longer usable."""
        return True

    @pytest.hookimpl
    def pytest_configure_node(self, node: WorkerController) -> None:
        """The same for every machine of every session, so that guests behave the same."""
        node.workerinput.update(workerid="guest", mainargv=["kdrift"], restorable=self.restorable(self.run_of(node)))

    def worker_workerfinished(self, node: WorkerController) -> None:
        """A machine's tests are done, or one has left something there (fixtures/remains.py): then the other tests go on in a restored
        machine. That is no second attempt of any test."""
        run, spent = self.run_of(node), node.workeroutput.get("spent")
        if spent:
            node.workeroutput["shouldstop"] = False     # this machine alone
            self.sched.remove_node(node)
        super().worker_workerfinished(node)
        node.gateway._io.popen.terminate()  # ends the machine, so that its slot is free at once
        node.ensure_teardown()
        if spent and run.number in self.sched.unfinished and not self.shouldstop:
            run.restores += 1
            self.start_machine(run)

    def worker_collectreport(self, node: WorkerController, rep: pytest.CollectReport) -> None:
        """A file that could not be collected, or was skipped as a whole; reported once per kernel."""
        run = self.run_of(node)
        if (run.number, rep.nodeid) not in self.uncollected:
            self.uncollected.add((run.number, rep.nodeid))
            vars(rep)["kernel"] = run
            self.config.hook.pytest_collectreport(report=rep)
            self._handlefailures(rep)

    def worker_logstart(self, node: WorkerController, nodeid: str, location: tuple[str, int | None, str]) -> None:
        run = self.run_of(node)
        run.first_test_at = run.first_test_at or time.time()
        self.started[run.number, nodeid] = time.monotonic()

    def worker_logfinish(self, node: WorkerController, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Pytest's own progress, file by file, makes no sense for kernels side by side."""

    def worker_testreport(self, node: WorkerController, rep: pytest.TestReport) -> None:
        run = self.run_of(node)
        vars(rep).update(kernel=run, wall_s=time.monotonic() - self.started.get((run.number, rep.nodeid), time.monotonic()))
        super().worker_testreport(node, rep)
        if rep.when == "teardown":          # a machine that ends after this does not end under this test
            self.sched.mark_test_complete(node, rep.item_index)

    def worker_errordown(self, node: WorkerController, error: object) -> None:
        """A machine ended by itself: say how, and decide how the kernel's tests continue."""
        run = self.run_of(node)
        self._active_nodes.remove(node)
        node.ensure_teardown()
        end: Event = run.machines[-1].last("end") or {"end": "lost", "why": f"the launcher was killed ({error})"}
        test = self.sched.remove_node(node) if node in self.sched.nodes else None
        if run.number not in self.sched.unfinished:
            return
        if end["end"] == "boot":
            run.error = end["why"]
        elif test:
            again = self.sched.rerun(run.number)
            self.report_ending(run, test, end, again)
            if run.number in self.sched.unfinished:
                self.start_machine(run)
            return
        else:
            run.failed_starts += 1
            if run.failed_starts < MOST_STARTS:
                self.start_machine(run)
                return
            run.error = "\n".join([end["why"], *end.get("console", [])])
        self.sched.give_up(run.number)

    def report_ending(self, run: KernelRun, test: str, end: Event, again: bool) -> None:
        """Report a test during which its machine ended."""
        what = "the kernel crashed" if end["end"] == "crashed" else "the machine was lost"
        lines = [f"{what}: {end['why']}", *end.get("console", [])]
        path = test.split("::")[0]
        report = pytest.TestReport(nodeid=test, location=(path, None, test.partition("::")[2]), keywords={}, outcome="failed",
                                   longrepr="\n".join(lines), when="call", kernel=run, ending=end["end"], hung="hung" in end, again=again,
                                   wall_s=time.monotonic() - self.started.get((run.number, test), time.monotonic()))
        self.config.hook.pytest_runtest_logreport(report=report)


@contextmanager
def guest_view(config: pytest.Config) -> Iterator[None]:
    """Hide this host and this session from the configuration that pytest-xdist hands to a worker.

    xdist would make a directory for tmp_path here, and its name means nothing in the guest.  And guests with the same input in each
    run behave the same.
    """
    factory = config.__dict__.pop("_tmp_path_factory")
    invocation = config.invocation_params
    # Pytest puts the variable's options before those of the command line, and a guest has no variables of ours.
    added = split(os.environ.get("PYTEST_ADDOPTS", ""))
    config.invocation_params = replace(invocation, args=guest_arguments((*added, *invocation.args)))
    try:
        yield
    finally:
        vars(config)["_tmp_path_factory"] = factory
        config.invocation_params = invocation


def guest_arguments(words: Iterable[str]) -> tuple[str, ...]:
    """Pytest's command line without options that guests do not need, and with a dummy value where only presence matters."""
    kept, words = [], iter(words)
    for word in words:
        name, assigned, _value = word.partition("=")
        if name in (*HOST_OPTIONS, *HOST_PATHS) and not assigned:
            next(words, None)
        if name in HOST_PATHS:
            kept.append(f"{name}=there")
        elif name not in HOST_OPTIONS:
            kept.append(word)
    return tuple(kept)
