"""One QEMU process: its command line, its clock, saving and restoring it."""
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Any, Self

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from vm.exact import RECORDED, SHIFT, count_from_zero
from vm.line import Line
from vm.outlet import Misbehaved
from vm.patience import Patience, processor_time
from vm.process import DIES_WITH_PARENT, as_value
from vm.qemu import VMError, kernel_line, qemu, qemu_version

MEMORY_MB = 512
MOST_CONSOLE = 64 << 20                     # bytes; a kernel that prints a warning for each packet has some MB
LONGEST_EVENT = 1 << 16                     # bytes
MONITOR_DEADLINE = 120                      # seconds of wall time for a QMP command; on a busy host it may take several
OPENING = 20                                # seconds (vm.patience) until QEMU has opened its sockets
LONGEST_SOCKET = 107                        # bytes in the path of a socket (unix(7))
SEED = 1                                    # of QEMU's own random numbers, so that two boots are alike
# What an emulated processor lacks. In QEMU up to 7.2 cmpxchg16b, which SLUB prefers, leaves bits of a pointer in EFLAGS: an interrupt
# right behind it returns with TF, NT or IOPL set from them (vm/processor.py).
WITHOUT = "-cx16"
# Model 2 is a K8 before revision C, for which init_amd_k8() does not set X86_FEATURE_REP_GOOD. So clear_page() is a loop of stores:
# QEMU leaves its translated code after each 8 bytes of `rep stosq`. /proc/cpuinfo lacks rep_good and the bug amd_e400, no more.
EMULATED = "qemu64,model=2,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq,+rdrand,+rdseed"
COMMAND_LINE = [
    "console=ttyS0", "loglevel=4", "rootfstype=ramfs", "net.ifnames=0",
    # No timer interrupts in an idle guest, and no costs that matter only on real processors.
    "nowatchdog", "tsc=nowatchdog", "psi=0", "mitigations=off", "cryptomgr.notests", "random.trust_cpu=on", "PYTHONHASHSEED=0",
    # Each object type has its own cache, so that leftover objects can be counted (netns/observe/slab.py).
    "slab_nomerge",
    # A panic or an oops ends the machine; an injected NMI turns a hang into a panic with a backtrace.
    "panic=-1", "oops=panic", "unknown_nmi_panic",
    # Kernel addresses are the same in every boot, for tools that patch or trace the kernel.
    "nokaslr",
    # So are those of processes: QEMU translates code again for each new address, which took 4/5 of the time of a command.
    "norandmaps",
]


def plain(text: str) -> str:
    """A guest's words with control characters as escapes: it may print them, and a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in text)


def event_of(line: bytes) -> dict[str, Any]:
    """What process 1 reports, as vm/guest.py sends it.  Raises Misbehaved for anything else."""
    wanted: dict[str, dict[str, type]] = {
        "ready": {"lacks": list}, "wrong": {"name": str, "flags": int, "right": int}, "done": {"status": int}}
    with suppress(ValueError, RecursionError):
        event = json.loads(line)
        fields = wanted.get(str(event.get("event"))) if isinstance(event, dict) else None
        if fields and all(isinstance(event.get(name), kind) for name, kind in fields.items()):
            if all(isinstance(each, str) and each.isprintable() for each in (*event.get("lacks", []), event.get("name", ""))):
                return dict(event)
    raise Misbehaved(f"process 1 sent no event, but {ascii(line[:80])}")


def status_of(monitor: QEMUMonitorProtocol, query: str) -> object:
    """The `status` in the answer to a query."""
    answer = monitor.cmd(query)
    assert isinstance(answer, dict)
    return answer["status"]


class Machine:
    """A running guest; as a context manager it leaves no process behind.

    `directory` holds its sockets and the console's log.  `control` is the socket on which the guest's process 1 reports,
    `line` carries its orders and execnet's protocol.  `parameters` are added to the kernel's command line, `devices` are
    arguments of QEMU's -device; `shift` is vm.exact's.  With `debugged` QEMU's gdb stub listens on the socket `gdb`, and a restored
    machine waits for it.
    """

    def __init__(self, vmlinuz: Path, initrd: Path, parameters: list[str], directory: Path, clock: str, accel: str,
                 devices: Sequence[str] = (), memory_mb: int = MEMORY_MB, debugged: bool = False,
                 shift: int = SHIFT):
        self.vmlinuz, self.initrd, self.parameters = vmlinuz, initrd, parameters
        self.directory, self.clock, self.accel, self.devices = directory, clock, accel, devices
        self.memory_mb, self.debugged, self.shift = memory_mb, debugged, shift
        self.console = directory / "console.log"
        self.memory: Path | None = None     # file for the guest's memory, if the machine is to be saved
        self.line = Line(directory)
        self.stack = ExitStack()

    def arguments(self) -> list[str]:
        """The arguments that define the machine; a saved state fits only the same ones."""
        arguments = ["-M", "q35,usb=off,vmport=off,hpet=off,memory-backend=ram", "-m", str(self.memory_mb), "-smp", "1",
                     "-nodefaults", "-display", "none", "-no-user-config", "-no-reboot", "-seed", str(SEED)]
        arguments += [word for device in self.devices for word in ("-device", device)]
        if self.clock == "virtual":
            return arguments + ["-accel", "tcg,tb-size=256", "-cpu", f"{EMULATED},{WITHOUT}",
                                "-icount", f"shift={self.shift},sleep=off", "-rtc", "base=2026-01-01,clock=vm"]
        if self.accel == "kvm":
            return arguments + ["-accel", "kvm", "-cpu", "host"]
        return arguments + ["-accel", "tcg,tb-size=256", "-cpu", f"max,{WITHOUT}"]

    def recorded(self) -> list[str]:
        """Additional arguments for an exact clock.  A machine that is to be saved cannot record: QEMU fails an assertion."""
        return RECORDED if self.clock == "virtual" and self.memory is None else []

    def inputs(self) -> list[str]:
        """The arguments for the guest's input; they precede those of the devices that use it."""
        return self.line.memory(restored=self.state is not None)

    def ports(self) -> list[str]:
        at = as_value(self.directory)
        # Without ioeventfd the thread that runs the guest takes its output at once and acknowledges it at the same instruction.
        return ["-serial", f"file:{self.console}", "-qmp", f"unix:{at}/qmp,server=on,wait=off",
                "-device", "virtio-serial-pci,ioeventfd=off",
                "-chardev", f"socket,id=control,path={at}/control,server=on,wait=off",
                "-device", "virtserialport,chardev=control,name=kdrift.control", *self.line.devices(),
                *(["-gdb", f"unix:{at}/gdb,server=on,wait=off"] if self.debugged else [])]

    def memory_backend(self) -> str:
        """The memory of a booting machine.  Raises VMError if its file has no room: QEMU would die of SIGBUS half-way."""
        if self.memory is None:
            return f"memory-backend-ram,id=ram,size={self.memory_mb}M"
        free = shutil.disk_usage(self.memory.parent).free >> 20
        if free < self.memory_mb:
            raise VMError(f"no space left for a saved state: it needs up to {self.memory_mb} MB, {free} MB are free: free some space, for "
                          "example with `./kdrift kernels --prune`, or set KDRIFT_CACHE to another directory")
        return f"memory-backend-file,id=ram,size={self.memory_mb}M,mem-path={as_value(self.memory)},share=on"

    def check_directory(self) -> None:
        """Raise VMError where its path leaves too little room for the names of the sockets."""
        if len(os.fsencode(self.directory / "control")) > LONGEST_SOCKET:
            raise VMError(f"{self.directory} is too long for a socket path: set TMPDIR or KDRIFT_CACHE to a shorter path")

    def start(self, state: Path | None = None) -> None:
        """Boot, or restore a saved state; with `memory`, from a copy of the state's memory there, so that it can be saved again.
        Raises VMError."""
        self.check_directory()
        self.state = state
        self.line.prepare()
        self.stack.callback(self.line.close)
        command = [*DIES_WITH_PARENT, qemu(), *self.arguments(), *self.recorded(), *self.inputs(), *self.ports()]
        if state is not None:
            private = f"memory-backend-file,id=ram,size={self.memory_mb}M,mem-path={as_value(state)}/ram,share=off"
            command += ["-object", self.memory_backend() if self.memory else private, "-incoming", "defer"]
        else:
            line = " ".join([*COMMAND_LINE, *self.parameters])
            command += ["-object", self.memory_backend()]
            command += ["-kernel", str(self.vmlinuz), "-initrd", str(self.initrd), *kernel_line(line, self.directory)]
        with open(self.directory / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            pass_fds=self.line.descriptors(),
                                            process_group=0)        # out of reach of Ctrl-C
        self.stack.callback(self._end)
        self.line.started()
        self.connect()

    def connect(self) -> None:
        """Connect to QEMU's sockets.  Raises VMError."""
        self.control = self._connect("control")
        self.line.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End QEMU and close its sockets; the machine may be started again."""
        self.stack.close()
        for name in ("qmp", "control", "input", "output"):
            (self.directory / name).unlink(missing_ok=True)

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _connect(self, name: str) -> socket.socket:
        patience = Patience(self.process.pid, OPENING)
        while True:
            link = socket.socket(socket.AF_UNIX)
            try:
                link.connect(str(self.directory / name))
                return self.stack.enter_context(link)
            except OSError:
                link.close()
                if self.process.poll() is not None:
                    raise VMError(f"QEMU exited at once: {self.last_message()}") from None
                if patience.is_over():
                    raise VMError(f"QEMU did not open its sockets within {OPENING} s") from None
                time.sleep(0.01)

    def wait(self, timeout: float = 10) -> bool:
        """Wait until QEMU exits; after `timeout` seconds (vm.patience) kill it and return False."""
        patience = Patience(self.process.pid, timeout)
        while not patience.is_over():
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(min(timeout, 0.5))
                return True
        self.process.kill()
        self.process.wait()
        return False

    def computed_s(self) -> float:
        """The processor time that QEMU has used, in seconds, independent of the host's other load."""
        return processor_time(self.process.pid)

    def peak_mb(self) -> float | None:
        """QEMU's peak memory in MB (VmHWM, proc(5)); None if it has exited."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
        return round(int(line.split()[1]) / 1024, 1) if line else None

    def last_message(self) -> str:
        """QEMU's last message, or else how it ended."""
        lines = (self.directory / "qemu.log").read_text(errors="replace").splitlines()
        if messages := [line for line in lines if line.strip() and ": warning: " not in line]:
            return messages[-1]
        status = self.process.poll()
        return f"killed by {signal.Signals(-status).name}" if status and status < 0 else f"status {status}"

    def console_tail(self, lines: int = 40) -> list[str]:
        """The last lines of the guest's console."""
        if not self.console.exists():
            return []
        with self.console.open("rb") as file:
            file.seek(max(0, self.console.stat().st_size - 64000))
            text = file.read().decode(errors="replace")
        return [plain(line.rstrip()) for line in text.splitlines() if line.strip()][-lines:]

    def check_console(self) -> None:
        """Raises Misbehaved if the guest floods its console, whose log is on the host's disk."""
        with suppress(FileNotFoundError):
            if self.console.stat().st_size > MOST_CONSOLE:
                raise Misbehaved(f"the guest wrote more than {MOST_CONSOLE >> 20} MB to its console")

    def event(self, timeout: float) -> dict[str, Any] | None:
        """The next event of process 1; None if the machine ended first.  Raises VMError after `timeout` seconds (vm.patience), and
        if the processor is wrong."""
        line, patience = b"", Patience(self.process.pid, timeout)
        while not line.endswith(b"\n"):
            self.check_console()
            if len(line) > LONGEST_EVENT:
                raise Misbehaved("process 1 sent no event, but a line without an end")
            ready, _, _ = select.select([self.control], [], [], 0.2)
            if ready:
                data = self.control.recv(1)
                if not data:
                    return None
                line += data
            elif self.process.poll() is not None:
                return None
            elif self.accel == "kvm" and "KVM internal error" in (self.directory / "qemu.log").read_text(errors="replace"):
                raise VMError("KVM internal error: the host's KVM cannot run this guest")
            elif patience.is_over():
                raise VMError(f"no response from the guest within {timeout:.0f} s")
        event = event_of(line)
        if event.get("event") == "wrong":   # from processor.probe(): no kernel can be judged here
            raise VMError(f"QEMU {qemu_version()} executes {event['name']} wrongly: EFLAGS is {event['flags']:#x}, expected "
                          f"{event['right']:#x}; no kernel can be judged with it: try another version of QEMU")
        return event

    def order(self, sources: bytes, **order: object) -> None:
        """Tell process 1, which has asked, what to run.  Raises VMError."""
        self.line.put(json.dumps({**order, "sources": len(sources)}).encode() + b"\n" + sources)
        self.go_on()

    def go_on(self) -> None:
        """Deliver the input that the guest has asked for, and resume the machine if it was restored; a debugger resumes it itself.
        Raises VMError."""
        self.line.answer()
        if self.state is not None and not self.debugged:
            with self.monitor("starting the restored machine") as monitor:
                monitor.cmd("cont")

    def await_question(self, timeout: float) -> None:
        """Wait until the guest has asked for input, and so stands still or is parked.  Raises VMError after `timeout` seconds
        (vm.patience)."""
        patience = Patience(self.process.pid, timeout)
        while not self.line.asked:
            self.check_console()
            if not self.line.check_bell():
                raise VMError(f"QEMU exited: {self.last_message()}")
            if patience.is_over():
                raise VMError(f"the guest did not ask for input within {timeout:.0f} s")
            time.sleep(0.005)

    @contextmanager
    def monitor(self, purpose: str) -> Iterator[QEMUMonitorProtocol]:
        """QEMU's monitor.  Raises VMError if QEMU rejects a command, has exited, or is silent for MONITOR_DEADLINE seconds."""
        monitor = QEMUMonitorProtocol(str(self.directory / "qmp"))
        monitor.settimeout(MONITOR_DEADLINE)
        try:
            monitor._sync(monitor._qmp.connect(str(self.directory / "qmp")), MONITOR_DEADLINE)     # connect() has no timeout
            yield monitor
        except TimeoutError:
            raise VMError(f"{purpose} failed: QEMU does not respond") from None
        except (QMPError, OSError) as error:
            self.wait(1)
            raise VMError(f"{purpose} failed: {self.last_message()}") from error
        finally:
            with suppress(QMPError, OSError, EOFError):
                monitor.close()

    def save(self, target: Path) -> None:
        """Write the device state of a machine that has asked for input to `target`, beside its memory, which is already a file.

        The machine cannot run again.  Raises VMError (a full disk, for one).
        """
        self.line.park()
        devices, part = target / "devices", target / "devices.part"
        with self.monitor("saving the machine's state") as monitor:
            monitor.cmd("stop")
            monitor.cmd("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
            monitor.cmd("migrate", uri=f"exec:cat > {quote(str(part))} && mv {quote(str(part))} {quote(str(devices))}")
            while (status := status_of(monitor, "query-migrate")) in ("setup", "active", "device"):
                time.sleep(0.01)
            if status != "completed":
                raise VMError(f"saving the machine's state failed: {status}")
        deadline = time.monotonic() + MONITOR_DEADLINE
        while not devices.exists():
            if time.monotonic() > deadline:
                raise VMError("saving the machine's state failed: QEMU could not write it")
            time.sleep(0.01)
        if self.clock == "virtual":
            count_from_zero(devices, self.shift)

    def load(self) -> None:
        """Read the saved state; the machine then stands still where it had asked for input.  Raises VMError."""
        with self.monitor("restoring the saved state") as monitor:
            monitor.cmd("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
            monitor.cmd("migrate-incoming", uri=f"exec:cat {quote(str(self.state))}/devices")
            while (status := status_of(monitor, "query-status")) == "inmigrate":
                time.sleep(0.01)
            if status not in ("paused", "postmigrate"):
                raise VMError(f"restoring the saved state failed: {status}")
        self.line.restored()

    def force_panic(self) -> None:
        """Inject an NMI, so that a hanging guest says where it is, and wait a moment for it.  Raises VMError."""
        with self.monitor("stopping the guest") as monitor:
            monitor.cmd("inject-nmi")
        self.wait()
