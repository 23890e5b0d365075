"""One virtual machine behind one execnet gateway: to pytest-xdist this process is a Python interpreter.

    python -m vm.launcher JOB ...      standard input and output: execnet's protocol

It waits for a slot, gets the boot image and the saved state (from the cache, or makes them), restores the machine and then
forwards bytes between execnet and the guest.  The machine never outlives this process, and this process never outlives its
standard input.
"""
import fcntl
import logging
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from common.errors import CacheError, trouble_of
from common.temporary import is_full_at
from fixtures.machine import CLOCK
from fixtures.oops import PANIC, impossible
from kernels.cache import Cache
from vm import shell
from vm.image import ImageError, boot_image
from vm.job import Event, Events, Job
from vm.line import Frames
from vm.machine import Machine, plain
from vm.outlet import Misbehaved
from vm.patience import Patience
from vm.process import signal_when_parent_ends
from vm.qemu import VMError, qemu_version
from vm.state import console_end, full_disk, full_disk_told, kernel_parameters, start, warm_state
from vm.wide import USERLANDS

LOOK = 20                                   # milliseconds between checks of the guest's output
LONGEST_WORDS = 200                         # characters of what a guest says of its end
OWNER_GONE = signal.SIGUSR1
ENDS = (signal.SIGTERM, OWNER_GONE)
Serve = Callable[[Machine, Job, Events], None]


class SessionOver(Exception):
    """The session no longer wants the machine, or is gone."""


def main(job_file: str, bootstrap: Callable[[], None] | None = None, serve: Serve | None = None) -> None:
    """`serve` does with the machine what the session wants of it, by default run tests."""
    try:
        job = Job.read(Path(job_file))
    except FileNotFoundError:
        return                              # the session was killed, and its directory is gone
    events = Events(job.events)
    try:
        end_with_session(job.owner)
        (bootstrap or answer_bootstrap)()
        with slot(Path(job.session), job.slots, events), tempfile.TemporaryDirectory(prefix="vm-", dir=job.session) as directory, \
                full_disk_told(Path(directory)):
            run(job, events, Path(directory), serve or run_tests)
    except SessionOver as over:
        if over.args[0] == OWNER_GONE:      # it was killed, so this process removes its directory
            shutil.rmtree(job.session, ignore_errors=True)
    except Misbehaved as error:
        events.add(end="lost", misbehaved=True, why=str(error))
    except (VMError, ImageError, CacheError, OSError) as error:
        words = trouble_of(error, job.session) if isinstance(error, OSError) else str(error)
        events.add(end="lost" if events.first("running") else "boot", why=words)
    except BaseException:
        events.add(end="lost", why="the launcher failed: " + traceback.format_exc())
        raise


def end_with_session(owner: int) -> None:
    """From now on SIGTERM from the session raises SessionOver; so does OWNER_GONE, which the kernel sends when the session is killed.

    Two signals, because getppid(2) cannot tell them apart: the children of a killed multithreaded process first belong to
    another of its threads.  A keyboard interrupt reaches the whole process group; the session decides what it means.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Where it interrupts an order to QEMU's monitor, asyncio would report the task on the session's standard error.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    for number in ENDS:
        signal.signal(number, session_over)
    signal_when_parent_ends(OWNER_GONE)
    if os.getppid() != owner:
        session_over(OWNER_GONE)


def session_over(received: int, *_: object) -> None:
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)       # once is enough, and nothing may interrupt the cleanup
    raise SessionOver(received)


def wait_for_end_signal() -> NoReturn:
    """A pipe to the session is closed, so one of the signals is on its way; only the signal tells whether the session was killed."""
    while True:
        time.sleep(0.05)


def answer_bootstrap() -> None:
    """Read execnet's bootstrap line and report success: the guest has the same code imported in its saved state.

    Answering at once lets the session start all its machines without waiting for each.
    """
    while os.read(0, 1) not in (b"\n", b""):
        pass
    write_all(1, b"1")


@contextmanager
def slot(directory: Path, slots: int, events: Events) -> Iterator[None]:
    """Hold one of `slots` slots; the kernel releases the lock however this process ends."""
    files = [open(directory / f"slot-{number}", "w") for number in range(slots)]
    try:
        events.add(state="waiting")
        while True:
            for file in files:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield
                return
            time.sleep(0.05)
    finally:
        for file in files:
            file.close()


def run(job: Job, events: Events, directory: Path, serve: Serve) -> None:
    with Cache(say=lambda line: events.add(note=line)) as cache:
        initrd = Path(job.initrd) if job.initrd else boot_image(cache, job.kernel, lambda: events.add(state="image"),
                                                                       USERLANDS[job.userland])
        without_kvm = Path(job.session, "without-kvm")
        for accel in ["kvm", "tcg"] if job.accel == "kvm" and not without_kvm.exists() else ["tcg"]:
            began = time.monotonic()
            with Machine(job.kernel.vmlinuz, initrd, kernel_parameters(job.kernel, job.python, job.append), directory, job.clock, accel,
                         job.devices, job.memory_mb, job.debugged, job.shift) as machine, kept_console(machine, job):
                if not job.tests:               # session.ahead
                    warm_state(machine, cache, job, events)
                    return
                try:
                    start(machine, cache, job, events)
                except VMError as error:
                    if accel == "tcg":
                        raise
                    without_kvm.touch()
                    events.add(note=f"KVM cannot run this kernel ({str(error).splitlines()[0]}): falling back to emulation")
                    continue
                events.add(state="running", boot_s=round(time.monotonic() - began, 3), accel=accel, qemu=qemu_version())
                if job.debugged:
                    print(debugger_line(machine, job), file=sys.stderr, flush=True)
                try:
                    serve(machine, job, events)
                finally:
                    if peak := machine.peak_mb():
                        events.add(peak_mb=peak)
                return


@contextmanager
def kept_console(machine: Machine, job: Job) -> Iterator[None]:
    """Keep the machine's console in the end, if that is wanted."""
    try:
        yield
    finally:
        if job.console and machine.console.exists():
            shutil.copy(machine.console, Path(job.console, f"{job.kernel.release}-{Path(job.events).stem}.log"))


def debugger_line(machine: Machine, job: Job) -> str:
    """What to type for a debugger, for which the machine waits; with the kernel's symbols if it is a built tree's."""
    symbols = next((path for top in list(job.kernel.vmlinuz.parents)[:4] if (path := top / "vmlinux").is_file()), "")
    file = f" {symbols}" if symbols else ""
    return f"kdrift: the machine waits for: gdb -ex 'target remote {machine.directory}/gdb'{file}"


def run_tests(machine: Machine, job: Job, events: Events) -> None:
    machine.order(Path(job.tests).read_bytes(), directory="/", cwd=job.cwd, id="guest", seed=job.seed,
                  env={CLOCK: job.clock, "KDRIFT_SEED": str(job.seed)})
    supervise(machine, job, events)


def supervise(machine: Machine, job: Job, events: Events) -> None:
    """Forward bytes until either side ends, and record how it ended."""
    patience = Patience(machine.process.pid, job.deadline)
    done = None
    frames = Frames()
    poller = select.poll()
    watched = {0, machine.line.bell.fileno(), machine.control.fileno()}
    for descriptor in watched:
        poller.register(descriptor, select.POLLIN)
    lives = True
    while lives:
        for descriptor, _ in poller.poll(LOOK):
            if descriptor == machine.line.bell.fileno():
                lives = machine.line.check_bell()
                continue
            data = receive(descriptor)
            if descriptor == 0:
                if not data:
                    wait_for_end_signal()
                for frame in frames.cut(data):
                    machine.line.put(frame)
            elif not data:
                poller.unregister(descriptor)
            elif job.shell and shell.wanted(data):
                with suppress(VMError):         # this loop sees what became of the machine
                    shell.serve(machine, job.owner)
                patience.renew()
            else:
                done = plain(data.decode(errors="replace").strip())[:LONGEST_WORDS]
        machine.check_console()
        if data := machine.line.received():     # whole messages: part of one is no sign of life
            patience.renew()
            write_all(1, data)
        if machine.line.asked:
            patience.renew()                    # the guest waits for the session
            machine.line.answer()
        if patience.is_over():
            give_up(machine, job, events)
            return
    machine.wait()
    events.add(**ending(machine, done))


def give_up(machine: Machine, job: Job, events: Events) -> None:
    """End a machine that has been silent for too long, and record where its kernel was.  Raises VMError if what it said is lost."""
    if is_full_at(machine.directory):
        raise VMError("what the guest wrote is lost: no space left on its disk")
    try:
        machine.force_panic()
        words = ["backtrace after an injected NMI:", *console_end(machine)]
    except VMError as error:
        words = [str(error)]
    events.add(end="lost", hung=True, why=f"hang: no output from the guest for {job.deadline:.0f} s", console=words)


def ending(machine: Machine, done: str | None) -> Event:
    """How a machine ended that was not told to end."""
    console = console_end(machine)
    if is_full_at(machine.directory):
        return {"end": "lost", "why": trouble_of(full_disk(machine.directory))}
    if line := impossible(machine.console_tail(400)):
        return {"end": "lost", "why": f"emulator error, impossible registers: {line.strip()}", "console": console}
    if any(PANIC.search(line) for line in console):
        return {"end": "crashed", "why": next(line for line in console if PANIC.search(line)), "console": console}
    if done:
        return {"end": "lost", "why": f"the test process in the guest exited early: {done}", "console": console}
    return {"end": "lost", "why": f"QEMU exited: {machine.last_message()}", "console": console}


def receive(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except ConnectionResetError:
        return b""


def write_all(descriptor: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data):]
    except BrokenPipeError:
        wait_for_end_signal()


if __name__ == "__main__":
    main(sys.argv[1])
