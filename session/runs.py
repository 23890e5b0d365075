"""The kernels of a session, one column each: what is known of them before and while their machines run."""
import argparse
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import FetchError, SpecError, trouble_of
from common.status import Exit
from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.grammar import LocalSpec, is_fetched, parse
from kernels.modules import build_of
from kernels.spec import resolve
from report.labels import LabelError, Named, check_label, labels_of, split_label
from session.places import HERE
from vm.job import Event, Events
from vm.qemu import VMError, check_device, qemu

DEBUGGED = 1e9                             # seconds that a machine may be silent while it is debugged
STATES = ("waiting", "image", "sending", "booting", "importing", "restoring", "running")      # of a machine, one after the other


def no_start(error: Exception) -> pytest.UsageError:
    """For a session that cannot begin, through no fault of what was typed; conftest.py gives it the exit status."""
    found = pytest.UsageError(trouble_of(error))
    vars(found)["status"] = Exit.LOST
    return found


@dataclass
class KernelRun:
    """One kernel of the session.  `label` is its column, unique in the session; `chosen` the label that the user gave it."""

    number: str
    spec: str
    label: str = ""
    kernel: Kernel | None = None
    clock: str = "virtual"                  # of its tests: virtual or real
    error: str | None = None                # why it could not be fetched or booted
    machines: list[Events] = field(default_factory=list)
    restores: int = 0                       # machines replaced because a test left something behind
    first_test_at: float | None = None      # seconds, by the clock of its events (vm.job)
    chosen: str = ""

    def named(self) -> Named:
        """What its label stands for."""
        kernel = self.kernel
        return Named(self.spec, self.path(), kernel.release if kernel else "", kernel.key if kernel else "", self.chosen)

    def path(self) -> Path | None:
        """Its file or tree, if it was given as one."""
        spec = parse(self.spec)
        return spec.path if isinstance(spec, LocalSpec) and spec.kind != "running" else None

    def running(self) -> Event:
        """What its machine reports once it runs: boot_s (seconds), qemu."""
        return next((event for events in self.machines if (event := events.last("boot_s"))), Event())

    def first_test_s(self) -> float | None:
        """Seconds of wall time from the start of its machine to its first test."""
        event = self.machines[0].first("restoring", "booting") if self.machines else None
        return round(self.first_test_at - event["at"], 3) if event and self.first_test_at else None

    def peak_mb(self) -> float | None:
        """The most memory that one of its machines used, in MB."""
        return max((event["peak_mb"] for events in self.machines if (event := events.last("peak_mb"))), default=None)

    def state(self) -> str:
        """The furthest state that one of its machines has reached, in a word."""
        states = {event["state"] for events in self.machines for event in events.read() if "state" in event}
        return max(states, key=STATES.index, default="waiting")

    def notes(self) -> list[str]:
        notes = [event["note"] for events in self.machines for event in events.read() if "note" in event]
        if self.restores:
            times = f"{self.restores} time{'s' * (self.restores > 1)}"
            notes.append(f"the machine was restored {times}, because a test left something behind or timed out")
        places = Counter(event["place"] for events in self.machines if (event := events.last("place")))
        if set(places) - {HERE}:
            notes.append("machines: " + ", ".join(f"{count} {name if name == HERE else f'on {name}'}" for name, count in places.items()))
        versions = sorted({event["qemu"] for events in self.machines if (event := events.last("qemu"))})
        if len(versions) > 1:
            notes.append(f"the machines had different versions of QEMU, {' and '.join(versions)}: results may depend on it")
        return notes


def find_kernels(words: list[str], options: argparse.Namespace, cache: Cache, boots_here: bool = True,
                 arrived: Callable[[Kernel, Cache], object] = lambda kernel, cache: None) -> list[KernelRun]:
    """The kernels of the session, fetched.  Raises pytest.UsageError for a specification that names no kernel.

    `words` are specifications, with or without a label.  A kernel that exists but cannot be fetched keeps its place with an error; the
    others still run.  They are in use until `cache` is closed.  `boots_here`: on this machine's QEMU.  `arrived` is called with each
    kernel after which others are fetched.
    """
    try:
        found = [split_label(word, parse) for word in words]
        runs = [KernelRun(str(number), spec, clock=options.clock, chosen=label) for number, (spec, label) in enumerate(found)]
        if boots_here:
            qemu()
            for device in options.devices:
                check_device(device)
        for run in sorted(runs, key=lambda each: is_fetched(each.spec)):
            try:
                kernel = resolve(run.spec, cache, offline=options.offline, mirror=options.mirror, allow_unverified=options.allow_unverified)
                run.kernel = replace(kernel, build=build_of(kernel))
                if boots_here and run is not runs[-1]:
                    arrived(run.kernel, cache)
            except FetchError as error:
                run.error = str(error)
    except (SpecError, VMError, FetchError) as error:
        raise pytest.UsageError(str(error)) from None
    return runs


def knobs(options: argparse.Namespace) -> dict[str, Any]:
    """What the options change of every machine, as fields of a Job.  Raises OSError if the directory for consoles cannot be made."""
    if options.console:
        Path(options.console).mkdir(parents=True, exist_ok=True)
    return {"append": [word for text in options.append for word in shlex.split(text)], "memory_mb": options.memory,
            "console": str(options.console or ""), "debugged": options.gdb,
            **({"deadline": DEBUGGED} if options.gdb else {"deadline": options.deadline})}


def name_columns(runs: Sequence[KernelRun], labels: Sequence[str]) -> None:
    """Give each column its label; `labels` are those of --label, in column order.  Raises pytest.UsageError."""
    try:
        if len(labels) > len(runs):
            raise LabelError(f"--label {labels[len(runs)]}: {len(labels)} labels for {len(runs)} columns")
        for run, label in zip(runs, labels, strict=False):
            if run.chosen:
                raise LabelError(f"{run.spec} has two labels, {run.chosen} and {label}")
            run.chosen = check_label(label)
        for run, label in zip(runs, labels_of([run.named() for run in runs]), strict=True):
            run.label = label
    except LabelError as error:
        raise pytest.UsageError(str(error)) from None
