"""How a machine comes to the point where it waits for orders: booted, or restored from a saved state.

There are two saved states of a kernel.  The first is taken when process 1 has imported Python's libraries; it lasts until the boot image
changes.  The second is made from it, with the project's own libraries imported (vm.payload.LIBRARIES); it lasts until one is edited.
"""
import errno
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.temporary import is_full_at
from fixtures.machine import CLOCK
from fixtures.oops import PANIC
from kernels.cache import Cache, Meta
from kernels.extract import Kernel
from vm.exact import RECORDED, SHIFT
from vm.image import INIT, SUITE, python_command
from vm.job import Events, Job
from vm.machine import COMMAND_LINE, MEMORY_MB, Machine
from vm.qemu import VMError, qemu_version

# Seconds (vm.patience) until the guest has imported everything, under emulation; --deadline if longer.
BOOT_DEADLINE = 180
KVM_BOOT_DEADLINE = 60                      # with KVM it takes a few seconds, and a hang should be noticed soon
GUEST_SAYS = "kdrift: "                     # begins the line in which process 1 says why it ended
UNPACKING = 2                               # copies of the boot image in memory while the kernel unpacks it
BESIDE_MB = 90                              # MB that the kernel and Python need besides
ASKING_DEADLINE = 20                        # seconds from `ready` until the guest asks for its orders


def kernel_parameters(kernel: Kernel, python: str | None = None, append: Sequence[str] = ()) -> list[str]:
    """This kernel's additional parameters: the user's own, process 1, and whether unsigned modules are refused."""
    return [*(["module.sig_enforce=1"] if kernel.check_modules else []), *append, f'rdinit="{python or python_command()}"', "--", INIT]


def start(machine: Machine, cache: Cache, job: Job, events: Events) -> None:
    """Bring a machine to the point where it waits for orders."""
    if job.fresh_boot:
        events.add(state="booting")
        note_missing_features(boot(machine, job.deadline), events)
        if job.libraries:
            import_libraries(machine, job)
    else:
        restore(machine, cache, job, events)


def boot(machine: Machine, deadline: float) -> list[str]:
    """Start a machine and wait until its process 1 is ready; returns the features that its kernel lacks, whose tests are skipped.

    Raises VMError with process 1's reason, or with the console's last lines.
    """
    check_room(machine.initrd, machine.memory_mb)
    machine.start()
    event = machine.event(KVM_BOOT_DEADLINE if machine.accel == "kvm" else max(BOOT_DEADLINE, deadline))
    if event is None:
        machine.wait()
        if machine.process.returncode:
            raise VMError(f"QEMU exited during boot: {machine.last_message()}")
        words = console_end(machine)
        if said := [line.removeprefix(GUEST_SAYS) for line in words if line.startswith(GUEST_SAYS)]:
            raise VMError(said[-1])
        raise VMError("\n".join(["the kernel did not boot; its last messages:", *words]) if words
                      else "the kernel did not boot and printed nothing")
    machine.await_question(ASKING_DEADLINE)
    lacks: list[str] = event["lacks"]
    return lacks


def check_room(initrd: Path, memory_mb: int) -> None:
    """Raises VMError if the machine's memory cannot hold the boot image: QEMU's or the kernel's own message would not say so."""
    size = initrd.stat().st_size >> 20
    if UNPACKING * size + BESIDE_MB > memory_mb:
        raise VMError(f"the boot image is {size} MB; a machine with {memory_mb} MB can unpack at most "
                      f"{(memory_mb - BESIDE_MB) // UNPACKING} MB: give it more (--memory), or strip the modules (make INSTALL_MOD_STRIP=1 "
                      "modules_install)")


def note_missing_features(lacks: list[str], events: Events) -> None:
    if lacks:
        events.add(note=f"the kernel has no {', '.join(lacks)}: tests that need them are skipped")


def restore(machine: Machine, cache: Cache, job: Job, events: Events) -> None:
    """Start from the saved state in which the tests' libraries are imported, or from the first if there are none.  Raises VMError."""
    def ready() -> Path:
        state = (warm_state if job.libraries else saved_state)(machine, cache, job, events)
        events.add(state="restoring")
        return state

    note_missing_features(cache.meta(load(machine, ready, cache, job, events))["lacks"], events)


def load(machine: Machine, saved: Callable[[], Path], cache: Cache, job: Job, events: Events, again: bool = True) -> Path:
    """Start a machine from the state that `saved` returns; if QEMU rejects it, `again`.  Returns the state.  Raises VMError."""
    machine.check_directory()               # which is no fault of the state
    state = saved()
    try:
        machine.start(state)
        machine.load()
    except VMError as error:
        full = is_full_at(machine.directory)        # which is no fault of the state either
        machine.stop()
        if full:
            raise full_disk(machine.directory) from None
        cache.discard(state)
        if not again:
            raise
        events.add(note=f"saved state of {job.kernel.release} is damaged ({error}): rebuilding it")
        return load(machine, saved, cache, job, events, again=False)
    return state


def warm_state(machine: Machine, cache: Cache, job: Job, events: Events) -> Path:
    """The saved state of a machine that has imported the tests' libraries, cached or newly made.  Raises VMError."""
    def save(target: Path) -> Meta:
        def copied() -> Path:
            state = saved_state(machine, cache, job, events)
            copy_memory(state / "ram", target / "ram")
            return state

        with another(machine, job) as first:
            first.memory = target / "ram"
            booted = load(first, copied, cache, job, events)
            events.add(state="importing")
            import_libraries(first, job)
            first.save(target)
        return {"lacks": cache.meta(booted)["lacks"]}

    facts = {"kernel": job.kernel.key, "group": " ".join(["warm", job.kernel.key, job.clock, machine.accel, job.python, *knobs_of(job)])}
    return cache.build("states", f"{state_key(machine, job)}-{job.libraries}", save, facts)


def copy_memory(source: Path, target: Path) -> None:
    """Copy the memory of a saved state, which is mostly holes.  Raises OSError: ENOSPC if the disk is full."""
    copy = subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "LC_ALL": "C"})
    if copy.returncode:
        number = next((each for each in (errno.ENOSPC, errno.EDQUOT) if os.strerror(each) in copy.stderr), errno.EIO)
        raise OSError(number, copy.stderr.strip(), str(target))


def import_libraries(machine: Machine, job: Job) -> None:
    """Have process 1 import what every test needs.  Raises VMError, with the console's last lines."""
    machine.order(Path(job.session, "libraries.tar").read_bytes(), directory="/", libraries=True, project=job.project,
                  env={CLOCK: job.clock})
    patience = KVM_BOOT_DEADLINE if machine.accel == "kvm" else max(BOOT_DEADLINE, job.deadline)
    try:
        machine.await_question(patience)
        while machine.line.pieces:          # an archive may take several
            machine.line.answer()
            machine.await_question(patience)
    except VMError as error:
        raise VMError("\n".join([str(error), *console_end(machine)])) from None


def full_disk(directory: Path) -> OSError:
    """For a machine whose directory has no room."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory.parent.parent))


@contextmanager
def full_disk_told(directory: Path) -> Iterator[None]:
    """Where the machine's disk is full, any other trouble comes of it: what the guest wrote is not whole then.  Raises OSError."""
    try:
        yield
    except (VMError, OSError):
        if is_full_at(directory):
            raise full_disk(directory) from None
        raise


@contextmanager
def another(machine: Machine, job: Job) -> Iterator[Machine]:
    """A machine like this one, to be saved."""
    with tempfile.TemporaryDirectory(prefix="save-", dir=job.session) as scratch, \
            Machine(machine.vmlinuz, machine.initrd, machine.parameters, Path(scratch), job.clock, machine.accel, job.devices,
                    machine.memory_mb, shift=machine.shift) as first, full_disk_told(Path(scratch)):
        yield first


def saved_state(machine: Machine, cache: Cache, job: Job, events: Events) -> Path:
    """The directory of the machine's saved state, cached or newly made.  Raises VMError."""
    def save(target: Path) -> Meta:
        events.add(state="booting")
        with another(machine, job) as first:
            first.memory = target / "ram"
            lacks = boot(first, job.deadline)
            first.save(target)
            return {"lacks": lacks}

    words = [job.kernel.key, job.clock, machine.accel, job.python, *knobs_of(job), *([job.userland] if job.userland != SUITE.name else [])]
    facts = {"kernel": job.kernel.key, "group": " ".join(words)}
    return cache.build("states", state_key(machine, job), save, facts)


def knobs_of(job: Job) -> list[str]:
    """What the user has changed of the machine, such that it has saved states of its own."""
    return [*job.append, *([f"{job.memory_mb} MB"] if job.memory_mb != MEMORY_MB else []), *(["fast"] if job.shift != SHIFT else [])]


def state_key(machine: Machine, job: Job) -> str:
    """A hash of all that the saved state depends on: the kernel, the packed files, QEMU and its arguments, with KVM the processor."""
    parts = [job.kernel.key, machine.initrd.parent.name, qemu_version(), *COMMAND_LINE, *machine.parameters, *machine.arguments(),
             *RECORDED]
    if machine.accel == "kvm":
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        parts += [line for line in lines if line.startswith(("model name", "flags", "microcode"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def console_end(machine: Machine, most: int = 30) -> list[str]:
    """The end of the console; from the first line of a panic on if there is one."""
    lines = machine.console_tail(200)
    first = next((number for number, line in enumerate(lines) if PANIC.search(line)), None)
    return lines[first:first + most] if first is not None else lines[-most:]
