"""A pytest session whose tests also run on other machines: hosts reached by ssh, and builders that boot kernels."""
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from xdist.workermanage import WorkerController

from common.project import PROJECT
from hosts.launcher import Visit
from hosts.ssh import Facts, Host, HostError, probe
from kernels.extract import Kernel
from report.labels import split_label
from session.runs import KernelRun
from session.scheduler import Shard
from session.session import KernelSession
from vm.job import Event, Events

LEFT_OUT = "the audit tests and those that unbind a device from its driver"


@dataclass
class HostRun(KernelRun):
    """The kernel that a host runs.  `own_machine`: tests may change more of it than private namespaces hold."""

    host: Host | None = None                # None if it did not come up
    own_machine: bool = False

    def path(self) -> None:
        return None

    def introduction(self, kernel: Kernel) -> str:
        """What the user should know before anything starts there, on its kernel."""
        rest = "they may change the whole machine" if self.own_machine else f"without --own-machine {LEFT_OUT} do not run"
        return f"{self.label}: {kernel.release}, tests run in private namespaces; {rest}"


@dataclass
class Builder:
    """A host that boots kernels; `alive` until a connection to it is lost."""

    host: Host
    processors: int
    alive: bool = True
    shards: set[str] = field(default_factory=set)   # numbers of the shards on it

    def load(self) -> float:
        """Machines per processor."""
        return len(self.shards) / self.processors


def parse_hosts(option: str, names: list[str], config: str | None) -> list[Host]:
    """The hosts of these names.  Raises pytest.UsageError."""
    try:
        return [Host.parse(name, config) for name in names]
    except ValueError as error:
        raise pytest.UsageError(f"{option} {error}") from None


def split_hosts(option: str, words: list[str]) -> tuple[list[str], list[str]]:
    """The hosts' names, and their labels, "" for none.  Raises pytest.UsageError."""
    try:
        found = [split_label(word, Host.parse) for word in words]
    except ValueError as error:
        raise pytest.UsageError(f"{option} {error}") from None
    return [name for name, _label in found], [label for _name, label in found]


def find_hosts(hosts: list[Host], labels: list[str], own_machine: bool, first: int) -> list[HostRun]:
    """A column per host, numbered from `first`; an unreachable one keeps its place with an error."""
    runs = []
    for number, (host, label) in enumerate(zip(hosts, labels, strict=True)):
        run = HostRun(str(first + number), host.name, clock="real", chosen=label, host=host, own_machine=own_machine)
        try:
            run.kernel = kernel_of(host, probe(host))
        except HostError as error:
            run.error = str(error)
        runs.append(run)
    return runs


def kernel_of(host: Host, facts: Facts) -> Kernel:
    """A host's kernel, as far as results need it.  Debian's build string has the package's version."""
    packaged = re.search(r"Debian (\S+)", facts.build)
    return Kernel(host.name, facts.release, None, packaged[1] if packaged else None, Path(), None, "", build=facts.build)


def find_builders(hosts: list[Host]) -> list[Builder]:
    """Probe the builders.  Raises pytest.UsageError if one cannot be reached or has no QEMU."""
    builders = []
    for host in hosts:
        try:
            facts = probe(host)
        except HostError as error:
            raise pytest.UsageError(f"--builder {host.name}: {error}") from None
        if not facts.qemu:
            raise pytest.UsageError(f"--builder {host.name}: qemu-system-x86_64 is not installed there (Debian package: qemu-system-x86)")
        builders.append(Builder(host, facts.processors))
    return builders


class FarSession(KernelSession):
    """Kernels are spread over the builders, if any; hosts run the tests themselves."""

    def __init__(self, config: pytest.Config, runs: list[KernelRun], builders: list[Builder]):
        super().__init__(config, runs)
        self.builders = builders
        self.boots_here = not builders
        self.last_lost = ""                 # why the last builder is no longer alive

    def shards_of(self, run: KernelRun, tests: list[str], last: list[str]) -> list[list[str]]:
        """One for a host, where the worker cannot be restored."""
        return [[*tests, *last]] if isinstance(run, HostRun) else super().shards_of(run, tests, last)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        for run in self.runs.values():
            if isinstance(run, HostRun) and run.kernel:
                self.config.get_terminal_writer().line(run.introduction(run.kernel))
        super().pytest_sessionstart(session)

    def slots(self) -> int:
        return sum(builder.processors for builder in self.builders if builder.alive) if self.builders else super().slots()

    def able(self) -> set[str]:
        """A host's worker takes no slot."""
        hosts = {run.number for run in self.wanted if isinstance(run, HostRun)}
        busy = [shard for shard in self.sched.shards.values() if shard.node and shard.kernel not in hosts]
        return set(self.runs) if len(busy) < self.slots() else hosts

    def start_machines(self) -> None:
        if self.builders and not any(builder.alive for builder in self.builders):
            for run in self.wanted:
                if run.number in self.sched.unfinished and not isinstance(run, HostRun):
                    run.error = f"no builder is left: {self.last_lost}"
                    self.sched.give_up(run.number)
        super().start_machines()

    def write_job(self, run: KernelRun, shard: Shard, events: Events, job: Path) -> str:
        if isinstance(run, HostRun):
            assert run.host
            where = self.config.invocation_params.dir
            cwd = str(where.relative_to(PROJECT)) if where.is_relative_to(PROJECT) else "."
            self.visit(run.host, events, self.archive(shard), slots=1, cwd=cwd, own_machine=run.own_machine).write(job)
        elif self.builders:
            builder = min((each for each in self.builders if each.alive), key=Builder.load)
            builder.shards.add(shard.number)
            events.add(note=f"runs on {builder.host.name}")
            machine = job.with_suffix(".machine")
            super().write_job(run, shard, events, machine)
            self.visit(builder.host, events, self.archive(shard), slots=builder.processors, job=str(machine)).write(job)
        else:
            return super().write_job(run, shard, events, job)
        return "hosts.launcher"

    def visit(self, host: Host, events: Events, tests: Path, slots: int, cwd: str = ".", own_machine: bool = False,
              job: str | None = None) -> Visit:
        return Visit(host, str(self.directory), os.getpid(), str(events.path), str(PROJECT), str(tests), slots, cwd, own_machine, job)

    def restorable(self, run: KernelRun) -> bool:
        return not isinstance(run, HostRun)

    def worker_workerfinished(self, node: WorkerController) -> None:
        self.leave_builder(node)            # before a builder is chosen for the kernel's next machine
        super().worker_workerfinished(node)

    def worker_errordown(self, node: WorkerController, error: object) -> None:
        """A machine ended; if its builder is lost, that is no failed start of the kernel."""
        builder = self.leave_builder(node)
        if builder and (end := self.events[node].last("end") or {}).get("host_lost"):
            builder.alive, self.last_lost = False, end["why"]
        super().worker_errordown(node, error)

    def is_failed_start(self, run: KernelRun, end: Event) -> bool:
        """A lost builder says nothing about the kernel."""
        return isinstance(run, HostRun) or not end.get("host_lost")

    def leave_builder(self, node: WorkerController) -> Builder | None:
        """Take its shard off its builder.  Returns that builder, if any."""
        shard = self.sched.of(node).number
        builder = next((each for each in self.builders if shard in each.shards), None)
        if builder:
            builder.shards.remove(shard)
        return builder
