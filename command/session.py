"""A command on some kernels: a launcher for each machine, whose frames come together here."""
import argparse
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from command.files import Account
from command.frames import FrameReader, read_outcome
from command.modules import add_modules
from common.project import PROJECT
from common.temporary import GuardedDirectory
from fixtures.oops import COMPLAINT
from session.progress import in_words
from session.runs import KernelRun, knobs
from vm.command import END, ERRORS, KEPT, LOG, OUTPUT
from vm.exact import FAST, SHIFT
from vm.image import python_command
from vm.job import Event, Events, Job
from vm.machine import plain
from vm.outlet import Misbehaved
from vm.wide import WIDE

ENDING = 10                                 # seconds that a launcher may take to end
LOOK = 0.3                                  # seconds between checks of what machines do
SHOWN = ("image", "booting")                # states that take long enough to be told
BUSY = 0.95                                 # share of the guest's time from which on it was busy all the time


@dataclass(frozen=True)
class Task:
    """A command and the files that it needs; `timeout` in seconds of the guest's clock, 0 for none.

    `unfit` has what its output says if it cannot run on the kernel, and why that is.
    """

    name: str
    words: tuple[str, ...]
    cwd: str
    archive: Path
    timeout: float = 0
    stdin: str = ""
    terminal: bool = False
    unfit: tuple[str, str] = ("", "")


@dataclass(eq=False)
class CommandRun:
    """One task on one kernel; `prefix` begins its lines."""

    kernel: KernelRun
    task: Task
    prefix: str
    events: Events
    kept: Path                              # a tar archive of what it has left in its output directory
    output: dict[bytes, bytes] = field(default_factory=lambda: {OUTPUT: b"", ERRORS: b""})
    log: list[str] = field(default_factory=list)
    outcome: dict[str, Any] = field(default_factory=dict)     # of vm.command: status, seconds, idle
    wall_s: float = 0.0
    computed_s: float = 0.0                 # processor time of its machine and launcher
    said: str = ""                          # the last state that was told
    unfinished: dict[bytes, bytes] = field(default_factory=lambda: {OUTPUT: b"", ERRORS: b""})
    quiet: bool = False                     # nobody wants to see it

    @property
    def end(self) -> Event:
        """How its machine ended if that came before the command's end."""
        return self.events.last("end") or Event()

    @property
    def complaints(self) -> list[str]:
        """The kernel's warnings."""
        return [line for line in self.log if COMPLAINT.search(line)]

    def show(self, kind: bytes, data: bytes) -> None:
        """Print what it has written; whole lines if they have a prefix."""
        self.output[kind] += data
        if self.quiet:
            return
        if self.prefix:
            *lines, self.unfinished[kind] = (self.unfinished[kind] + data).split(b"\n")
            data = b"".join(self.prefix.encode() + line + b"\n" for line in lines)
        write(kind, data)

    def finish(self) -> None:
        """Print the lines that have no end, and say how it went."""
        if self.quiet:
            return
        for kind, rest in self.unfinished.items():
            if rest:
                write(kind, self.prefix.encode() + rest + b"\n")
        for line in self.verdict():
            say(f"{self.prefix}{line}")

    def verdict(self) -> list[str]:
        """How it ended, and what it took: nothing for what a user of the command expects."""
        if error := self.kernel.error:
            return [error]
        if end := self.end:
            return [f"{end['end']}: {end['why']}", *(f"  {line}" for line in end.get("console", []))]
        lines = [f"the kernel complains: {line}" for line in self.complaints]
        seconds, idle = self.outcome["seconds"], self.outcome["idle"]
        words = f"{seconds:.3f} s of the guest's time in {self.wall_s:.1f} s ({self.computed_s:.1f} s of processor time)"
        if seconds > 1 and idle < (1 - BUSY) * seconds:
            words += "; it was busy all the time: there was nothing to skip"
        return [*lines, words]


def write(kind: bytes, data: bytes) -> None:
    stream = sys.stdout if kind == OUTPUT else sys.stderr
    stream.buffer.write(data)
    stream.flush()


def say(text: str) -> None:
    """Tell the user, on the terminal, which obeys none of a guest's words here: those are escaped."""
    lines = "\n".join(plain(line) for line in text.split("\n"))
    print(f"kdrift: {lines}", file=sys.stderr, flush=True)


class CommandSession:
    """Runs every task on every kernel, some at a time; as a context manager it leaves no process and no file.

    With `quiet` it prints nothing.
    """

    def __init__(self, options: argparse.Namespace, kernels: Sequence[KernelRun], owner: Account, environment: dict[str, str],
                 quiet: bool = False) -> None:
        self.options, self.kernels, self.owner, self.quiet = options, kernels, owner, quiet
        home = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": owner.home, "USER": owner.name,
                "LOGNAME": owner.name, "LANG": "C.UTF-8", "TERM": "dumb", "SHELL": "/bin/sh", "PYTHONHASHSEED": "0",
                "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment = {**home, **environment}
        self.processes: dict[CommandRun, subprocess.Popen[bytes]] = {}
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> "CommandSession":
        self._place = GuardedDirectory()
        self.directory = Path(self._place.name)
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes.values():
            process.terminate()             # a launcher with a machine ends it at once
        for process in self.processes.values():
            try:
                process.wait(ENDING)
            except subprocess.TimeoutExpired:
                process.kill()              # the machine dies with it
                process.wait()
        self._place.cleanup()
        self.selector.close()

    def end(self) -> None:
        """End what runs, from another thread; run() returns."""
        for process in list(self.processes.values()):
            process.terminate()

    def run(self, tasks: Sequence[Task]) -> list[CommandRun]:
        """Run them all, and print what they print.  Kernels that could not be had are among the results, too."""
        option = self.options
        self.job = partial(Job, clock=option.clock, accel="tcg", slots=option.slots, fresh_boot=option.fresh_boot, devices=option.devices,
                           python=python_command(), cwd="/", session=str(self.directory), owner=os.getpid(), seed=option.seed,
                           userland=WIDE.name, shift=FAST if option.speed else SHIFT, **knobs(option))
        self.archives: dict[tuple[str, Path], Path] = {}
        for number, kernel in enumerate(each for each in self.kernels if each.kernel and option.modules):
            assert kernel.kernel
            for archive in {task.archive for task in tasks}:
                target = self.directory / f"modules-{number}-{archive.name}"
                add_modules(archive, target, kernel.kernel, option.modules)
                self.archives[kernel.number, archive] = target
        width = max(len(kernel.label) for kernel in self.kernels)
        waiting = [self._planned(kernel, task, number, width, len(tasks)) for number, task in enumerate(tasks) for kernel in self.kernels]
        done: list[CommandRun] = []
        while waiting or self.processes:
            while waiting and len(self.processes) < option.slots:
                if self._start(waiting[0]):
                    waiting.pop(0)
                else:
                    done.append(waiting.pop(0))
                    done[-1].finish()
            for key, _ in self.selector.select(LOOK) if self.processes else ():
                if not self._read(*key.data):
                    done.append(self._ended(key.data[0]))
            for run in self.processes:
                self._tell(run)
        return done

    def _planned(self, kernel: KernelRun, task: Task, number: int, width: int, tasks: int) -> CommandRun:
        words = [f"{kernel.label:{width}}"] * (len(self.kernels) > 1) + [task.name] * (tasks > 1)
        name = f"{kernel.number}-{number}"
        run = CommandRun(kernel, task, "  ".join([*words, ""]) if words else "", Events(self.directory / f"{name}.events"),
                         self.directory / f"{name}.tar", quiet=self.quiet)
        kernel.machines.append(run.events)
        return run

    def _start(self, run: CommandRun) -> bool:
        """Start its launcher, unless the kernel could not be had."""
        if not run.kernel.kernel:
            return False
        task, owner = run.task, self.owner
        order = {"command": task.words, "cwd": task.cwd, "env": {**self.environment, "PWD": task.cwd}, "stdin": task.stdin,
                 "timeout": task.timeout, "user": [owner.uid, owner.gid], "accounts": {"/etc/passwd": owner.line} if owner.line else {},
                 "terminal": task.terminal, "modules": self.options.modules,
                 "introduction": f"{run.kernel.kernel.release}; its clock stands still until you type; "
                                                            "Ctrl-D leaves\n"}
        file = run.events.path.with_suffix(".job")
        archive = self.archives.get((run.kernel.number, task.archive), task.archive)
        self.job(kernel=run.kernel.kernel, events=str(run.events.path), tests=str(archive), order=order).write(file)
        run.wall_s = -time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "command.launcher", str(file)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(PROJECT)})
        self.processes[run] = process
        assert process.stdout
        self.selector.register(process.stdout, selectors.EVENT_READ, (run, process, FrameReader()))
        return True

    def _read(self, run: CommandRun, process: "subprocess.Popen[bytes]", frames: FrameReader) -> bool:
        """Take what has come; whether more may."""
        assert process.stdout
        data = os.read(process.stdout.fileno(), 1 << 16)
        for kind, content in frames.feed(data):
            if kind in (OUTPUT, ERRORS):
                run.show(kind, content)
            elif kind == LOG:
                run.log += map(plain, content.decode(errors="replace").splitlines())
            elif kind == KEPT:
                with run.kept.open("ab") as archive:
                    archive.write(content)
            elif kind == END:
                try:
                    run.outcome = read_outcome(content)
                except Misbehaved as error:
                    run.events.add(end="lost", why=str(error))
        return bool(data)

    def _ended(self, run: CommandRun) -> CommandRun:
        """Its launcher has ended."""
        process = self.processes[run]
        assert process.stdout
        self.selector.unregister(process.stdout)
        process.stdout.close()
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0              # it has been waited for
        del self.processes[run]
        run.wall_s += time.monotonic()
        run.computed_s = used.ru_utime + used.ru_stime
        run.events.keep()
        if run.end.get("end") == "boot":
            run.kernel.error = run.end["why"]
        elif not run.outcome and not run.end:
            run.events.add(end="lost", why="the launcher failed")
            run.events.keep()
        run.finish()
        return run

    def _tell(self, run: CommandRun) -> None:
        """Say what its machine does if that takes long."""
        state = (run.events.last("state") or Event()).get("state", "")
        if state in SHOWN and state != run.said and not run.quiet:
            run.said = state
            say(f"{run.prefix}{in_words(state)}")
