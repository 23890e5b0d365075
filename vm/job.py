"""Messages between session and launcher: two small files in the session's directory."""
import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

from common.errors import is_full
from kernels.extract import Kernel
from vm.exact import SHIFT
from vm.image import SUITE


@dataclass(frozen=True)
class Job:
    """One virtual machine to run.  Times are seconds of the host's clock."""

    kernel: Kernel
    clock: str                              # virtual or real
    accel: str                              # tcg or kvm
    slots: int                              # machines that may run at once
    fresh_boot: bool                        # boot instead of restoring the saved state
    devices: list[str]                      # QEMU devices to add
    deadline: float                         # silence of the guest until it is given up (vm.patience)
    python: str                             # the guest's interpreter, and the tests' working directory: as on the session's host
    cwd: str
    session: str                            # the session's directory
    owner: int                              # the session's PID
    events: str                             # file for this machine's events
    initrd: str | None = None               # the boot image, if the launcher does not make it
    project: str = ""                       # the session's
    libraries: str = ""                     # the key of libraries.tar (vm.payload), which is in the session's directory
    tests: str = ""                         # archive with the sources of the tests; without, the saved states are made and nothing runs
    shell: bool = False                     # whether its tests may ask for the user's terminal
    seed: int = 1                           # of the guest's random numbers
    append: list[str] = field(default_factory=list)         # kernel parameters
    memory_mb: int = 512
    shift: int = SHIFT                      # how fast its processor is against its clock
    console: str = ""                       # directory for the whole console of each machine
    debugged: bool = False                  # it waits for a debugger
    userland: str = SUITE.name              # vm.wide.USERLANDS
    order: dict[str, Any] = field(default_factory=dict)     # of a machine that runs a command (vm.command.run), whose files are `tests`

    @classmethod
    def read(cls, path: Path) -> "Job":
        data = json.loads(path.read_text())
        kernel = data.pop("kernel")
        for name in ("vmlinuz", "modules"):
            kernel[name] = Path(kernel[name]) if kernel[name] else None
        return cls(kernel=Kernel(**kernel), **data)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), default=str))


class Event(TypedDict, total=False):
    """What a launcher, or hosts.remote on another machine, reports."""

    at: float                               # seconds by CLOCK_MONOTONIC, which all processes of this machine share
    state: str
    note: str                               # for the user
    place: str                              # where it runs, if there are builders
    boot_s: float                           # these three with the state "running"
    accel: str
    qemu: str
    peak_mb: float
    need: int                               # a builder: whether it lacks Python, then the boot image
    far: bool                               # it comes from another machine
    end: str                                # boot, crashed or lost
    why: str
    console: list[str]                      # the guest's last lines
    hung: bool
    misbehaved: bool                        # the guest broke a rule (vm.outlet): its kernel gets no other machine
    host_lost: bool                         # the connection to the other machine ended


class Events:
    """A machine's history, one JSON object per line: what it is doing (`state`), and how it ended (`end`)."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.kept: list[Event] | None = None

    def add(self, **event: Unpack[Event]) -> None:
        line = json.dumps({"at": time.monotonic(), **event}).encode() + b"\n"
        with suppress(FileNotFoundError), self.path.open("ab", buffering=0) as file:       # a killed session leaves no directory
            at = file.tell()
            try:
                whole = file.write(line) == len(line)
            except OSError as error:
                whole = False
                if not is_full(error):
                    raise
            if not whole:                   # the disk is full; session and launcher look at it themselves
                file.truncate(at)

    def keep(self) -> None:
        """Keep all events in memory: the file is about to be removed."""
        self.kept = self.read()

    def read(self) -> list[Event]:
        if self.kept is not None:
            return self.kept
        try:
            return [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def last(self, key: str) -> Event | None:
        """The newest event that has `key`."""
        return next((event for event in reversed(self.read()) if key in event), None)

    def first(self, *states: str) -> Event | None:
        """The oldest event with one of these states."""
        return next((event for event in self.read() if event.get("state") in states), None)
