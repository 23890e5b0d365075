"""A pytest session over kernels: its workers, as pytest-xdist calls them, are virtual machines that run a shard of a kernel's tests."""
import errno
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from copy import copy
from enum import Enum
from functools import partial
from pathlib import Path
from shlex import join
from typing import Any

import execnet
import pytest
from execnet.gateway import RInfo
from xdist.dsession import DSession
from xdist.workermanage import NodeManager, WorkerController

from common.errors import FetchError, trouble_of
from common.project import PROJECT
from common.temporary import GuardedDirectory, is_full_at
from kernels.cache import Cache
from report.labels import same_kernels
from session import durations, worker
from session.guests import Guest
from session.places import HERE, Place
from session.runs import KernelRun, knobs, no_start
from session.scheduler import KernelScheduling, Shard, cut, shuffle
from session.view import guest_view
from vm.image import python_command
from vm.inventory import Skim
from vm.job import Event, Events, Job
from vm.outlet import Misbehaved
from vm.own import own_directories
from vm.payload import inventory, libraries_key, pack_libraries, pack_tests
from vm.qemu import kvm_trouble

ENDING = 10                                 # seconds that a launcher may take to end
MOST_STARTS = 2                             # machines of one shard that may end at one place before a test has run


def worker_spec(launcher: list[str], kernel: str, shard: str) -> execnet.XSpec:
    """The gateway of a worker. The launcher's command is not in the text, which execnet would cut at each "//" of a path.

    Without an execmodel xdist would make another specification of the text.
    """
    spec = execnet.XSpec(f"execmodel=main_thread_only//popen//kernel={kernel}//shard={shard}")
    spec.python = join(launcher)
    return spec


class KernelSession(DSession):
    """pytest-xdist's session, with kernels as workers and a policy for machines that end early.

    The tests are selected here, once for all kernels. A test whose machine crashed or was lost runs once more in a restored machine,
    and the shard's remaining tests follow there.
    """

    directory: Path                         # of the session, from its start on
    terminal: pytest.TerminalReporter | None
    sched: KernelScheduling

    def __init__(self, config: pytest.Config, runs: list[KernelRun]):
        super().__init__(config)
        if self.terminal:                   # progress is shown by kernel, see session.progress
            config.pluginmanager.unregister(self.trdist)
            self.terminal = None
        self.runs = {run.number: run for run in runs}
        self.places = [Place(HERE, self.slots(), self.runs)] if self.slots() else []
        self.started: dict[tuple[WorkerController, str], float] = {}
        self.owners: dict[tuple[str, str], WorkerController] = {}       # by number of the kernel and test, who reports it
        self.uncollected: set[tuple[str, str]] = set()
        self.unreadable: list[pytest.CollectReport] = []
        self.events: dict[WorkerController, Events] = {}
        self.misbehaved: dict[WorkerController, str] = {}       # guests that are believed no more, and why
        self.took: dict[str, float] = {}    # seconds of wall time, by test
        self.ended: set[tuple[str, str]] = set()            # likewise, what has been torn down
        self.launchers: list[subprocess.Popen[bytes]] = []

    def unrun_of(self, run: KernelRun) -> list[str]:
        """Chosen tests that did not run on a kernel."""
        return self.sched.unrun(run.number) if self.sched else []

    def run_of(self, node: WorkerController) -> KernelRun:
        return self.runs[node.gateway.spec.kernel]

    def slots(self) -> int:
        """Machines that may run at once on this machine."""
        return 1 if self.config.option.shell else self.config.option.slots

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session
        try:
            directory = GuardedDirectory()
            self.config.add_cleanup(directory.cleanup)
            self.directory = Path(directory.name)
            with Cache(say=lambda line: None) as cache:
                (self.directory / "libraries.tar").write_bytes(pack_libraries(cache))
                self.skim(cache)
        except (OSError, FetchError) as error:
            raise no_start(error) from None
        runs = list(self.runs.values())
        for line in same_kernels([run.label for run in runs], [run.named() for run in runs]):
            self.config.get_terminal_writer().line(line)
        option = self.config.option
        accel = "kvm" if option.clock == "real" else "tcg"
        if accel == "kvm" and self.slots() and (trouble := kvm_trouble()):
            self.config.get_terminal_writer().line(f"{trouble}: falling back to emulation")
            accel = "tcg"
        if option.shell and option.slots > 1:
            self.config.get_terminal_writer().line("--shell runs one machine at a time (--slots 1)")
        self.job = partial(Job, clock=option.clock, accel=accel, slots=self.slots(), fresh_boot=option.fresh_boot, devices=option.devices,
                           python=python_command(), cwd=str(self.config.invocation_params.dir),
                           session=str(self.directory), owner=os.getpid(), seed=option.seed, shell=option.shell, project=str(PROJECT),
                           libraries=libraries_key(), **knobs(option))
        os.environ["PYTHONPATH"] = str(PROJECT)     # for the launchers; execnet would wait for an `env:` in the gateway's specification
        self.wanted = [run for run in self.runs.values() if run.kernel]
        self.archives: dict[tuple[str, ...], Path] = {}
        self.nodemanager = NodeManager(self.config, specs=[])
        self.nodemanager.testrunuid = "kdrift"      # xdist's own differs in each run, and guests would see it

    def skim(self, cache: Cache) -> None:
        """Have pytest leave out files in which -k matches nothing."""
        if expression := self.config.option.keyword.strip():
            with suppress(SyntaxError):     # pytest says so itself
                self.config.pluginmanager.register(Skim(PROJECT, expression, inventory(cache)))

    @pytest.hookimpl
    def pytest_collection(self) -> None:
        """None, so that pytest collects; pytest-xdist's session leaves that to its workers."""

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Put aside the reports of files that cannot be collected, or were skipped as a whole: each kernel will have them."""
        report = yield
        if report.passed:
            return report
        self.unreadable.append(report)
        if any("::" in word for word in self.config.args):
            return report                   # else pytest would say that the file has no such test
        return pytest.CollectReport(collector.nodeid, "passed", None, [])

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
        durations.write(self.took)

    def start_machines(self) -> None:
        """Start workers while there are slots and shards that can use one.  A kernel that can run nowhere is given up."""
        for run in self.wanted:
            troubles = [place.trouble(run.number) for place in self.places if run.number in place.kernels]
            if run.number in self.sched.unfinished and all(troubles):
                run.error = troubles[0]
                self.sched.give_up(run.number)
        while not self.shuttingdown and not self.shouldstop and (found := self.sched.next(self.places)):
            self.start_machine(*found)

    def start_machine(self, shard: Shard, place: Place) -> None:
        """Start a worker for a shard; it answers once its machine runs."""
        run, shard.place = self.runs[shard.kernel], place
        place.shards[shard.number] = shard.kernel
        name = f"{run.number}-{len(run.machines)}"
        events = Events(self.directory / f"{name}.events")
        run.machines.append(events)
        job = self.directory / f"{name}.job"
        try:
            module = self.write_job(run, shard, events, job)
        except (OSError, FetchError) as error:
            place.unfit[run.number] = trouble_of(error)
            del place.shards[shard.number]
            shard.place = None
            return
        spec = worker_spec([sys.executable, "-m", module, str(job)], run.number, shard.number)
        self.nodemanager.group.allocate_id(spec)
        with guest_view(self.config, shard.files()):
            shard.node = self.nodemanager.setup_node(spec, self.queue.put)
        self.events[shard.node] = events
        self.launchers.append(shard.node.gateway._io.popen)
        self._active_nodes.add(shard.node)

    def write_job(self, run: KernelRun, shard: Shard, events: Events, job: Path) -> str:
        """Write the launcher's job.  Returns the launcher's module."""
        assert run.kernel
        self.job(kernel=run.kernel, events=str(events.path), tests=str(self.archive(shard))).write(job)
        return "vm.launcher"

    def archive(self, shard: Shard) -> Path:
        """The file with the sources of its tests."""
        directories = tuple(sorted({str(Path(file).parent) for file in shard.files()}))
        if directories not in self.archives:
            self.archives[directories] = path = self.directory / f"tests-{len(self.archives)}.tar"
            with Cache(say=lambda line: None) as cache:
                path.write_bytes(pack_tests(cache, shard.files(), own_directories(self.config.args)))
        return self.archives[directories]

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
        tests = [item.nodeid for item in self._session.items if not item.get_closest_marker("last")]
        last = [item.nodeid for item in self._session.items if item.get_closest_marker("last")]
        shards = [(run.number, shard) for run in self.wanted for shard in self.shards_of(run, tests, last)]
        return KernelScheduling([Shard(str(number), kernel, shard) for number, (kernel, shard) in enumerate(shards)], durations.read())

    def shards_of(self, run: KernelRun, tests: list[str], last: list[str]) -> list[list[str]]:
        """A kernel's tests, as its machines run them."""
        seed = self.config.option.shuffle
        slots = sum(place.slots for place in self.places if run.number in place.kernels)
        return shuffle(tests, last, seed) if seed else cut(tests, slots, last)

    @pytest.hookimpl
    def pytest_runtestloop(self) -> bool:
        if self.wanted and self._session.items:
            finished: bool = super().pytest_runtestloop()
            return finished
        self.shouldstop = False
        self.report_unreadable()
        return True

    def loop_once(self) -> None:
        """xdist calls this until the session has finished."""
        self.report_unreadable()
        self.start_machines()
        if self._active_nodes:
            super().loop_once()             # waits for an event of one of them
        else:
            self.triggershutdown()

    def report_unreadable(self) -> None:
        """Each kernel has the files that cannot be collected."""
        while self.unreadable:
            report = self.unreadable.pop(0)
            for run in self.wanted:
                self.report_uncollected(run, copy(report))

    def restorable(self, run: KernelRun) -> bool:
        """Whether another machine can replace one that is no longer usable."""
        return True

    @pytest.hookimpl
    def pytest_configure_node(self, node: WorkerController) -> None:
        """The same for every machine that runs the same tests, so that guests behave the same."""
        node.workerinput.update(workerid="guest", mainargv=["kdrift"], restorable=self.restorable(self.run_of(node)),
                                tests=list(self.sched.of(node).left))
        believe = node.process_from_remote
        guest = Guest(self.sched.of(node).left)

        def process(said: Any) -> None:
            """Called by execnet's thread with each event, and with xdist's mark at the end, which no guest can send."""
            try:
                believe(guest.checked(*said) if isinstance(said, tuple) and len(said) == 2 else said if isinstance(said, Enum)
                        else guest.checked(said, None))
            except Misbehaved as error:
                self.misbehaved.setdefault(node, str(error))
                node.gateway._io.popen.terminate()

        node.process_from_remote = process

    def worker_workerfinished(self, node: WorkerController) -> None:
        """A machine's tests are done, or one has left something there (fixtures/remains.py): then the other tests go on in a restored
        machine. That is no second attempt of any test."""
        run, spent = self.run_of(node), node.workeroutput.get("spent")
        if spent:
            node.workeroutput["shouldstop"] = False     # this machine alone
            self.sched.remove_node(node)
            if self.sched.of(node).left and not self.shouldstop:
                run.restores += 1
        super().worker_workerfinished(node)
        self.leave(node)

    def leave(self, node: WorkerController) -> Shard:
        """Close the connection to a worker and end its machine, if it still runs, so that its slot is free.  Returns its shard."""
        node.gateway._io.popen.terminate()
        node.ensure_teardown()
        shard = self.sched.of(node)
        if shard.node is node:
            assert shard.place
            del shard.place.shards[shard.number]
            shard.node = shard.place = None
        for key in [key for key, owner in self.owners.items() if owner is node and key not in self.ended]:
            del self.owners[key]
        return shard

    def worker_collectreport(self, node: WorkerController, rep: pytest.CollectReport) -> None:
        """A file that could not be collected in a guest, or was skipped there as a whole."""
        self.report_uncollected(self.run_of(node), rep)

    def report_uncollected(self, run: KernelRun, report: pytest.CollectReport) -> None:
        """Once per kernel."""
        if (run.number, report.nodeid) not in self.uncollected:
            self.uncollected.add((run.number, report.nodeid))
            vars(report)["kernel"] = run
            self.config.hook.pytest_collectreport(report=report)
            self._handlefailures(report)

    def worker_logstart(self, node: WorkerController, nodeid: str, location: tuple[str, int | None, str]) -> None:
        run = self.run_of(node)
        run.first_test_at = run.first_test_at or time.monotonic()
        self.started[node, nodeid] = time.monotonic()
        self.owners.setdefault((run.number, nodeid), node)

    def worker_logfinish(self, node: WorkerController, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Pytest's own progress, file by file, makes no sense for kernels side by side."""

    def worker_testreport(self, node: WorkerController, rep: pytest.TestReport) -> None:
        run = self.run_of(node)
        test, took = rep.nodeid, time.monotonic() - self.started.get((node, rep.nodeid), time.monotonic())
        vars(rep).update(kernel=run, wall_s=took)
        # Tests that are last in each shard are reported by the first machine that runs them; what they find in another one counts.
        if not rep.passed or self.owners.get((run.number, test)) in (node, None):
            super().worker_testreport(node, rep)
        if rep.when == "teardown":          # a machine that ends after this does not end under this test
            self.took[test] = took
            self.sched.mark_test_complete(node, rep.item_index)
            self.ended.add((run.number, test))
        if self.shouldstop:                 # with -x: machines have all their orders; this one's test has yet to be torn down
            for each in self._active_nodes - ({node} if rep.when != "teardown" else set()):
                each.gateway._io.popen.terminate()

    def worker_errordown(self, node: WorkerController, error: object) -> None:
        """A machine ended by itself: say how, and decide how the kernel's tests continue."""
        run = self.run_of(node)
        self._active_nodes.remove(node)
        test = self.sched.remove_node(node) if node in self.sched.nodes else None
        place = self.sched.of(node).place
        assert place
        shard = self.leave(node)
        end = self.events[node].last("end") or self.silent_end(error)
        if why := self.misbehaved.get(node):
            end = {"end": "lost", "why": why, "misbehaved": True}
        if end.get("misbehaved"):           # no other machine: it would do the same
            self.sched.give_up(run.number)
            test = test or next(iter(shard.left), None)
        if self.shouldstop:
            return
        given_up = run.number in self.sched.given_up
        if test:
            self.report_ending(run, node, test, end, self.sched.rerun(shard, once=given_up))
        elif end["end"] == "boot":
            place.unfit[run.number] = end["why"]
        elif not shard.left:
            self.events[node].add(note=f"a machine ended after its last test: {end['why']}")
        elif not given_up and self.is_failed_start(run, end):
            shard.failed_starts[place] += 1
            if shard.failed_starts[place] >= MOST_STARTS:
                place.unfit[run.number] = "\n".join([end["why"], *end.get("console", [])])

    def silent_end(self, error: object) -> Event:
        """How a machine ended whose launcher could not say it."""
        if is_full_at(self.directory):
            return {"end": "boot", "why": f"{self.directory.parent}: {os.strerror(errno.ENOSPC)}"}
        return {"end": "lost", "why": f"the launcher was killed ({error})"}

    def is_failed_start(self, run: KernelRun, end: Event) -> bool:
        """Whether the end of a machine that has run no test says something about its kernel."""
        return True

    def report_ending(self, run: KernelRun, node: WorkerController, test: str, end: Event, again: bool) -> None:
        """Report a test during which its machine ended."""
        what = "the kernel crashed" if end["end"] == "crashed" else "the machine was lost"
        lines = [f"{what}: {end['why']}", *end.get("console", [])]
        path = test.split("::")[0]
        report = pytest.TestReport(nodeid=test, location=(path, None, test.partition("::")[2]), keywords={}, outcome="failed",
                                   longrepr="\n".join(lines), when="call", kernel=run, ending=end["end"], hung="hung" in end, again=again,
                                   wall_s=time.monotonic() - self.started.get((node, test), time.monotonic()))
        self.config.hook.pytest_runtest_logreport(report=report)
