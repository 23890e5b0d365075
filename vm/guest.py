"""Process 1 of the guest: mounts, modules, imports, then one pytest worker.

The kernel starts this file as `rdinit` with the project's own Python.  It talks to the launcher through two virtio-serial
ports: `kdrift.control` (JSON lines) and `kdrift.gateway` (execnet's protocol).  It requests all its input (vm.inlet): an
order in JSON, the sources as a tar archive, then execnet's messages.  It sends `ready` before the first request, at which the
machine stands still and may be saved; everything later belongs to one session.
"""
import ctypes
import fcntl
import gc
import hashlib
import importlib
import io
import json
import os
import pkgutil
import resource
import socket
import struct
import subprocess
import sys
import tarfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:                           # vm/look.py, processor.py and inlet.py are packed beside this file
    from vm import look as kdrift_look, processor as kdrift_processor
    from vm.inlet import GatewayIO, Inlet
else:
    import kdrift_look
    import kdrift_processor
    from kdrift_inlet import GatewayIO, Inlet

SETTINGS = "/etc/kdrift.json"
MOUNTS = [                                  # source, target, type, required; whether the others exist depends on the kernel's configuration
    ("proc", "/proc", "proc", True),
    ("sysfs", "/sys", "sysfs", True),
    ("devtmpfs", "/dev", "devtmpfs", True),
    ("devpts", "/dev/pts", "devpts", False),
    ("tracefs", "/sys/kernel/tracing", "tracefs", False),
    ("debugfs", "/sys/kernel/debug", "debugfs", False),
    ("bpf", "/sys/fs/bpf", "bpf", False),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", False),
]
# Kernel housekeeping, turned off: its timers would wake an idle guest every second or two, and its clock could not skip far.
QUIET = {
    # Otherwise a loaded tunnel module adds its devices to every new namespace, which also have to be destroyed.
    "/proc/sys/net/core/fb_tunnels_only_for_init_net": "1",
    "/proc/sys/vm/stat_interval": "86400",
    "/proc/sys/vm/dirty_writeback_centisecs": "0",
    "/proc/sys/vm/compaction_proactiveness": "0",       # kcompactd wakes twice a second, on 5.10 even so: 90 % of wake-ups of an idle 6.12
    # The server that guards ordinary tasks against real-time ones, which do not exist here, wakes a second after each (6.12 and later).
    "/sys/kernel/debug/sched/fair_server/cpu0/runtime": "0",
}
RNDRESEEDCRNG = 0x5207                      # linux/random.h
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 1            # netdevice(7)
MOST_FILES = 1 << 20                        # a test may hold many thousands of sockets
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str) -> bool:
    os.makedirs(target, exist_ok=True)
    return not libc.mount(source.encode(), target.encode(), kind.encode(), 0, None)


def prepare_system() -> None:
    """Raises OSError if a file system that every test needs cannot be mounted."""
    for source, target, kind, needed in MOUNTS:
        if not mount(source, target, kind) and needed and not os.path.ismount(target):
            raise OSError(ctypes.get_errno(), f"cannot mount {kind} at {target}")
    socket.sethostname("kdrift")
    for name, value in QUIET.items():
        if os.path.exists(name):
            Path(name).write_text(value)


def port(name: str) -> str:
    """The device of a named virtio-serial port; loads its driver first if that is a module."""
    for attempt in range(2):
        for entry in Path("/sys/class/virtio-ports").glob("*"):
            if (entry / "name").read_text().strip() == name:
                return f"/dev/{entry.name}"
        if attempt == 0:
            subprocess.run(["/sbin/modprobe", "-a", "virtio_pci", "virtio_console"], check=False)
    raise kdrift_look.unfit(f"virtio-serial port {name}", "virtio_console", "VIRTIO_CONSOLE")


def preload(packages: list[str]) -> None:
    """Import what every session imports, so that it is in the saved state.  `name.*` means a package with all that is below it."""
    for name in packages:
        package = importlib.import_module(name.removesuffix(".*"))
        if name.endswith(".*"):
            for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                if not found.name.endswith("__main__"):
                    importlib.import_module(found.name)
    gc.collect()
    gc.freeze()


class Control:
    """The guest's connection to the launcher."""

    def __init__(self) -> None:
        self.file = open(port("kdrift.control"), "r+b", buffering=0)
        self.inlet = Inlet()

    def send(self, **event: object) -> None:
        self.file.write(json.dumps(event).encode() + b"\n")

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The order and the sources."""
        data = self.inlet.ask()
        line, _, rest = data.partition(b"\n")
        order, pieces = json.loads(line), [rest]
        while sum(map(len, pieces)) < order["sources"]:
            pieces.append(self.inlet.ask())
        return order, b"".join(pieces)


def seed_random(seed: int) -> None:
    """Derive the kernel's random numbers from the seed (random(4)): ports, sequence numbers, hash keys.

    The first seed leaves them unchanged.
    """
    if seed != 1:
        with open("/dev/urandom", "r+b", buffering=0) as pool:
            pool.write(hashlib.sha256(str(seed).encode()).digest())
            fcntl.ioctl(pool, RNDRESEEDCRNG)


def connect_once() -> None:
    """Make the machine's first TCP connection, over loopback. In it the kernel fills table_perturb, 256 kB of random numbers: 12 ms, which
    would count in whichever test came first (DO_ONCE_SLOW() in __inet_hash_connect())."""
    with socket.socket() as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", 9))
        # Its address came by itself, and its routes would stay.
        fcntl.ioctl(sock, SIOCSIFADDR, struct.pack("16sH14x", b"lo", socket.AF_INET))
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", 0))


def begin(seed: int) -> None:
    """What precedes the first test, after the machine was restored for it."""
    seed_random(seed)
    connect_once()


def become_worker(order: dict[str, Any], inlet: Inlet) -> None:
    """Runs in the child: execnet serves until the other side ends."""
    gateway = os.open(port("kdrift.gateway"), os.O_RDWR)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.environ.update(order["env"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES, MOST_FILES))
    os.makedirs(order["cwd"], exist_ok=True)        # it may have none of the tests
    os.chdir(order["cwd"])
    from execnet.gateway_base import get_execmodel, serve
    io = GatewayIO(inlet, gateway, get_execmodel("main_thread_only"))
    serve(io, id=order["id"] + "-worker")  # type: ignore[arg-type]  # it lacks what serve() does not call: kill(), wait()


def wait_for(child: int) -> int:
    """Reap every process until `child` exits; returns its exit status."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def unpack(control: Control) -> dict[str, Any]:
    """Take an order, and put its sources where they belong."""
    order, packed = control.receive()
    with tarfile.open(fileobj=io.BytesIO(packed)) as sources:
        sources.extractall(order["directory"])
    return order


def import_libraries(directory: str) -> None:
    """Import the project's conftest.py with its plugins, by pytest itself, which rewrites their assertions, and all of netns."""
    from _pytest.config import _prepareconfig
    os.chdir(directory)
    config = _prepareconfig(["-c", "pytest.ini", directory])
    config._ensure_unconfigure()
    preload(["netns.*"])
    os.chdir("/")


def run_command(control: Control) -> None:
    """In the wide image: run the user's command in a world that hides the tests' one."""
    command = importlib.import_module("kdrift_command")
    console = importlib.import_module("kdrift_console").Console(control.file.fileno())
    command.make_world()
    control.send(event="ready", release=os.uname().release, lacks=[])
    order = command.receive(control.inlet)
    begin(order["seed"])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    stream = command.Stream(os.open(port("kdrift.gateway"), os.O_RDWR))
    command.run(order, stream, lambda words, environment: console.run(words, environment, order["introduction"]))


def main() -> None:
    prepare_system()
    settings = json.loads(Path(SETTINGS).read_text())
    os.environ.update(settings["env"])
    control = Control()
    if wrong := kdrift_processor.probe():
        control.send(event="wrong", name=wrong[0], flags=wrong[1], right=wrong[2])
        return
    if settings["command"]:
        preload(settings["preload"])
        return run_command(control)
    kdrift_look.essentials()
    preload(settings["preload"])
    control.send(event="ready", release=os.uname().release, lacks=kdrift_look.lacks())
    order = unpack(control)
    if "libraries" in order:
        os.environ.update(order["env"])
        import_libraries(order["project"])
        order = unpack(control)
    if "seed" in order:                     # else it comes with the tests (rerun/guest.py)
        begin(order["seed"])
    child = os.fork()
    if child == 0:
        os.environ["KDRIFT_CONTROL"] = str(control.file.fileno())      # for --shell, which has the port to itself until the worker ends
        try:
            become_worker(order, control.inlet)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    control.send(event="done", status=wait_for(child))


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        print(f"kdrift: {error}", file=sys.stderr, flush=True)      # the launcher reports this reason
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    libc.reboot(0x01234567)                 # RB_AUTOBOOT: QEMU exits, because it runs with -no-reboot
