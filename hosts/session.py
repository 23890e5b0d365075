"""A pytest session whose tests also run on other machines: hosts reached by ssh, and builders that boot kernels."""
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdist.workermanage import WorkerController

from common.project import PROJECT
from hosts.launcher import Visit
from hosts.ssh import Facts, Host, HostError, probe
from kernels.extract import Kernel
from report.labels import split_label
from session.places import Place
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


class Builder(Place):
    """A host that boots kernels."""

    def __init__(self, host: Host, slots: int):
        super().__init__(host.name, slots)
        self.host = host


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


def split_builders(words: list[str]) -> tuple[list[str], list[int | None]]:
    """The builders' names, and how many machines each may run at once, where `HOST=SLOTS` says so.  Raises pytest.UsageError."""
    parts = [word.partition("=") for word in words]
    for (name, given, slots), word in zip(parts, words, strict=True):
        if given and not (slots.isascii() and slots.isdigit() and int(slots)):
            raise pytest.UsageError(f"--builder {word}: {slots!r} is no number of slots")
        if [each for each, _given, _slots in parts].count(name) > 1:
            raise pytest.UsageError(f"--builder {name}: named more than once")
    return [name for name, _given, _slots in parts], [int(slots) if given else None for _name, given, slots in parts]


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


def find_builders(hosts: list[Host], slots: list[int | None]) -> list[Builder]:
    """Probe the builders.  Where `slots` has None, there is one per processor.

    Raises pytest.UsageError if one cannot be reached or has no QEMU.
    """
    builders = []
    for host, most in zip(hosts, slots, strict=True):
        try:
            facts = probe(host)
        except HostError as error:
            raise pytest.UsageError(f"--builder {host.name}: {error}") from None
        if not facts.qemu:
            raise pytest.UsageError(f"--builder {host.name}: qemu-system-x86_64 is not installed there (Debian package: qemu-system-x86)")
        builders.append(Builder(host, most or facts.processors))
    return builders


class FarSession(KernelSession):
    """The kernels' shards are spread over this machine and the builders, if any; hosts run the tests themselves."""

    def __init__(self, config: pytest.Config, runs: list[KernelRun], builders: list[Builder]):
        super().__init__(config, runs)
        hosts = [run.number for run in runs if isinstance(run, HostRun)]
        self.places += builders
        for place in self.places:
            place.kernels = self.runs.keys() - hosts
        self.places += [Place(self.runs[number].label, 1, [number]) for number in hosts]

    def shards_of(self, run: KernelRun, tests: list[str], last: list[str]) -> list[list[str]]:
        """One for a host, where the worker cannot be restored."""
        return [[*tests, *last]] if isinstance(run, HostRun) else super().shards_of(run, tests, last)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        for run in self.runs.values():
            if isinstance(run, HostRun) and run.kernel:
                self.config.get_terminal_writer().line(run.introduction(run.kernel))
        super().pytest_sessionstart(session)

    def write_job(self, run: KernelRun, shard: Shard, events: Events, job: Path) -> str:
        if isinstance(run, HostRun):
            assert run.host
            where = self.config.invocation_params.dir
            cwd = str(where.relative_to(PROJECT)) if where.is_relative_to(PROJECT) else "."
            self.visit(run.host, events, self.archive(shard), slots=1, cwd=cwd, own_machine=run.own_machine).write(job)
            return "hosts.launcher"
        assert shard.place
        if any(isinstance(place, Builder) for place in self.places):
            events.add(place=shard.place.name)
        if not isinstance(shard.place, Builder):
            return super().write_job(run, shard, events, job)
        machine = job.with_suffix(".machine")
        super().write_job(run, shard, events, machine)
        self.visit(shard.place.host, events, self.archive(shard), slots=shard.place.slots, job=str(machine)).write(job)
        return "hosts.launcher"

    def visit(self, host: Host, events: Events, tests: Path, slots: int, cwd: str = ".", own_machine: bool = False,
              job: str | None = None) -> Visit:
        return Visit(host, str(self.directory), os.getpid(), str(events.path), str(PROJECT), str(tests), slots, cwd, own_machine, job)

    def restorable(self, run: KernelRun) -> bool:
        return not isinstance(run, HostRun)

    def worker_errordown(self, node: WorkerController, error: object) -> None:
        """A machine ended; what one builder cannot do goes on elsewhere."""
        run, place = self.run_of(node), self.sched.of(node).place
        known = isinstance(place, Builder) and place.trouble(run.number)
        super().worker_errordown(node, error)
        end = self.events[node].last("end") or Event()
        if isinstance(place, Builder):
            why = end.get("why", "").partition("\n")[0]
            if end.get("host_lost"):
                place.lost = f"builder {place.name} is lost: {why}"
                self.events[node].add(note=place.lost)
            elif not known and place.trouble(run.number):
                self.events[node].add(note=f"does not start on {place.name}: {why}")

    def is_failed_start(self, run: KernelRun, end: Event) -> bool:
        """A lost builder says nothing about the kernel."""
        return isinstance(run, HostRun) or not end.get("host_lost")
