"""What the session tells a launcher, and what the launcher tells the session: two small files in the session's directory."""
import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from kernels.extract import Kernel


@dataclass(frozen=True)
class Job:
    """One virtual machine to be run.  Times are seconds of the host's clock."""

    kernel: Kernel
    clock: str                              # virtual or real
    accel: str                              # tcg or kvm
    slots: int                              # machines that may run at a time
    fresh_boot: bool                        # boot instead of restoring the saved state
    devices: list[str]                      # that QEMU adds to the machine
    deadline: float                         # silence of the guest after which it is given up (vm.patience)
    python: str                             # the guest's interpreter, the project and where the tests run: as on the session's host
    project: str
    cwd: str
    session: str                            # the session's directory
    owner: int                              # the session's process
    events: str                             # file for this machine's events
    initrd: str | None = None               # the boot image, where it is not made by the launcher itself
    seed: int = 1                           # of what is chance in the guest

    @classmethod
    def read(cls, path: Path) -> "Job":
        data = json.loads(path.read_text())
        kernel = data.pop("kernel")
        for name in ("vmlinuz", "modules"):
            kernel[name] = Path(kernel[name]) if kernel[name] else None
        return cls(kernel=Kernel(**kernel), **data)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), default=str))


class Events:
    """A machine's history, one JSON object a line: what it does now (`state`), and how it ended (`end`)."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.kept: list[dict] | None = None

    def add(self, **event: object) -> None:
        with suppress(FileNotFoundError), self.path.open("a") as file:      # a session that was killed leaves no directory
            file.write(json.dumps({"at": time.time(), **event}) + "\n")

    def keep(self) -> None:
        """Remember all there is: the file is about to be removed."""
        self.kept = self.read()

    def read(self) -> list[dict]:
        if self.kept is not None:
            return self.kept
        try:
            return [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def last(self, key: str) -> dict | None:
        """The newest event that has `key`."""
        return next((event for event in reversed(self.read()) if key in event), None)

    def first(self, *states: str) -> dict | None:
        """The oldest event with one of these states."""
        return next((event for event in self.read() if event.get("state") in states), None)
