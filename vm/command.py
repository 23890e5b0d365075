"""The user's command in a guest: the world that it finds, its files, its input, its output and how it ends.

Process 1 imports this file, which is packed beside it, and hands over when it has its order.  What the launcher gets is a stream of
frames: one byte that says what it is, the length, the data.
"""
import ctypes
import json
import os
import re
import resource
import select
import signal
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from vm.inlet import Inlet

HEAD = struct.Struct(">cI")                 # of a frame
OUTPUT, ERRORS, LOG, KEPT, END = b"O", b"E", b"L", b"K", b"X"      # standard output and error, kernel log, a tar of OUT, the outcome
OUT = "/run/kdrift-out"                     # $KDRIFT_OUT
CHUNK = 1 << 16
TIMED_OUT, NOT_EXECUTABLE, NOT_FOUND = 124, 126, 127               # statuses of timeout(1) and of a shell
MOST_FILES = 1 << 20
BOOTED = 1_767_268_800                      # seconds: 2026-01-01 12:00 UTC, when every command begins
DIRECTORIES = {"/tmp": 0o1777, "/var/tmp": 0o1777, "/run/lock": 0o1777, "/run/netns": 0o755, "/var/lib": 0o755, "/var/log": 0o755,
               "/var/cache": 0o755, "/home/user": 0o755, "/mnt": 0o755, "/srv": 0o755, "/opt": 0o755, "/root": 0o700}
LINKS = {"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
         "/dev/core": "/proc/kcore", "/etc/mtab": "/proc/self/mounts", "/var/run": "/run", "/var/lock": "/run/lock"}
# A tmpfs; message queues, which not every kernel has.
MOUNTS = (("tmpfs", "/dev/shm", "mode=1777"), ("mqueue", "/dev/mqueue", ""))
# What process 1 has changed for tests, back as the kernel has it; and what Debian changes: every user may ping.
SYSCTLS = {"/proc/sys/net/core/fb_tunnels_only_for_init_net": "0", "/proc/sys/net/ipv4/ping_group_range": "0 2147483647"}
libc = ctypes.CDLL(None, use_errno=True)


def make_world() -> None:
    """What an ordinary system has when a user logs in and process 1 does not make for tests."""
    for place, mode in DIRECTORIES.items():
        os.makedirs(place, exist_ok=True)
        os.chmod(place, mode)
    os.chown("/home/user", 1000, 1000)
    for place, target in LINKS.items():
        if not os.path.lexists(place):
            os.symlink(target, place)
    for kind, place, options in MOUNTS:
        os.makedirs(place, exist_ok=True)
        libc.mount(kind.encode(), place.encode(), kind.encode(), 0, options.encode() or None)
    for name, value in SYSCTLS.items():
        if os.path.exists(name):
            Path(name).write_text(value)
    listing = Path("/lib/modules", os.uname().release, "modules.devname")
    if listing.exists():
        make_nodes(static_nodes(listing.read_text()))


def static_nodes(listing: str) -> list[tuple[str, int, int, int]]:
    """Path, type, major and minor number of the device nodes in modules.devname, as kmod makes them: opening one loads its module."""
    lines = re.findall(r"(?m)^\S+ (\S+) ([bc])(\d+):(\d+)$", listing)
    return [(f"/dev/{name}", stat.S_IFBLK if kind == "b" else stat.S_IFCHR, int(major), int(minor)) for name, kind, major, minor in lines]


def make_nodes(nodes: list[tuple[str, int, int, int]]) -> None:
    for place, kind, major, minor in nodes:
        if not os.path.lexists(place):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.mknod(place, kind | 0o666, os.makedev(major, minor))
            os.chmod(place, 0o666)


def receive(inlet: "Inlet") -> dict[str, Any]:
    """The order; its files are unpacked by then, piece by piece as they come."""
    line, _, piece = inlet.ask().partition(b"\n")
    order: dict[str, Any] = json.loads(line)
    left = order["sources"] - len(piece)
    with tempfile.TemporaryFile() as complaints:
        unpacking = subprocess.Popen(["tar", "-x", "-p", "--numeric-owner", "--keep-directory-symlink", "-C", "/"], stdin=subprocess.PIPE,
                                     stderr=complaints)
        assert unpacking.stdin
        try:
            unpacking.stdin.write(piece)
            while left > 0:
                piece = inlet.ask()
                unpacking.stdin.write(piece)
                left -= len(piece)
            unpacking.stdin.close()
        except BrokenPipeError:
            pass                            # it says why
        if unpacking.wait():
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").splitlines()
            raise OSError(f"the files for the command cannot be unpacked: {said[-1] if said else 'no reason given'}")
    return order


class Stream:
    """What goes to the launcher, through a virtio-serial port."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, kind: bytes, data: bytes) -> None:
        view = memoryview(HEAD.pack(kind, len(data)) + data)
        while view:
            view = view[os.write(self.port, view):]


def run(order: dict[str, Any], stream: Stream, shell: Callable[[list[str], dict[str, str]], None]) -> None:
    """Run the command, and report how it ended.  `shell` runs one on the user's terminal instead."""
    for name, line in order["accounts"].items():
        with open(name, "a") as file:
            file.write(line)
    uid, gid = order["user"]
    if order["modules"]:
        loaded = subprocess.run(["modprobe", "-a", *order["modules"]], stderr=subprocess.PIPE, text=True)
        if loaded.returncode:
            raise OSError((loaded.stderr.strip().splitlines() or [f"modprobe: status {loaded.returncode}"])[0])
    os.makedirs(OUT, exist_ok=True)
    os.chown(OUT, uid, gid)
    os.makedirs(order["cwd"], exist_ok=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, MOST_FILES))
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(log, 0, os.SEEK_END)
    environment = {**order["env"], "KDRIFT_OUT": OUT}
    time.clock_settime(time.CLOCK_REALTIME, BOOTED)
    began, idle = time.monotonic(), idle_seconds()
    if order["terminal"]:
        os.chdir(order["cwd"])
        shell(order["command"], environment)
        status = 0
    else:
        status = Errand(order, environment, stream).run()
    took, idle = time.monotonic() - began, idle_seconds() - idle
    if lines := list(records(log)):
        stream.send(LOG, "\n".join(lines).encode())
    if os.listdir(OUT):
        with subprocess.Popen(["tar", "-c", "-C", OUT, "."], stdout=subprocess.PIPE) as packing:
            assert packing.stdout
            for piece in iter(lambda: packing.stdout.read(CHUNK), b""):     # type: ignore[union-attr]  # it is no other than before
                stream.send(KEPT, piece)
    stream.send(END, json.dumps({"status": status, "seconds": round(took, 6), "idle": round(idle, 2)}).encode())


def idle_seconds() -> float:
    """Of /proc/uptime: how long the processor has had nothing to do."""
    return float(Path("/proc/uptime").read_text().split()[1])


def records(log: int) -> Iterator[str]:
    """The lines of the kernel's log since `log` was opened at its end (Documentation/ABI/testing/dev-kmsg)."""
    while True:
        try:
            yield os.read(log, 8192).decode(errors="replace").partition(";")[2].partition("\n")[0]
        except BrokenPipeError:
            continue                        # what came next has been overwritten
        except BlockingIOError:
            return


class Errand:
    """One command, its output, and the time that it may take, on the guest's clock."""

    def __init__(self, order: dict[str, Any], environment: dict[str, str], stream: Stream) -> None:
        self.order, self.environment, self.stream = order, environment, stream
        self.ended: Optional[int] = None

    def run(self) -> int:
        """Its exit status; 128 and the number of the signal that ended it, as a shell has it."""
        order, (uid, gid) = self.order, self.order["user"]
        given = order["stdin"] or os.devnull
        try:
            with open(given, "rb") as stdin:
                child = subprocess.Popen(order["command"], cwd=order["cwd"], env=self.environment, stdin=stdin, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, bufsize=0, start_new_session=True,
                                         **({"user": uid, "group": gid, "extra_groups": []} if uid else {}))
        except OSError as error:
            what = f"{order['command'][0]}: {error.strerror}\n"
            self.stream.send(ERRORS, what.encode())
            return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        assert child.stdout and child.stderr
        names = {child.stdout.fileno(): OUTPUT, child.stderr.fileno(): ERRORS}
        limit = time.monotonic() + order["timeout"] if order["timeout"] else None
        timed_out = self._relay(child.pid, names, limit)
        if timed_out:
            self.stream.send(ERRORS, f"kdrift: ended after {order['timeout']:g} s of the guest's time\n".encode())
            return TIMED_OUT
        assert self.ended is not None
        return 128 - self.ended if self.ended < 0 else self.ended

    def _relay(self, child: int, names: dict[int, bytes], limit: Optional[float]) -> bool:
        """Pass on what the command writes until it has ended; whether it was ended because its time was over.

        What it leaves running keeps the pipes open, and is not waited for.
        """
        poller = select.poll()
        woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakes)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for descriptor in (*names, woken):
            os.set_blocking(descriptor, False)
            poller.register(descriptor, select.POLLIN)
        self._reap(child)                   # it may have ended before the handler was there
        while self.ended is None:
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                os.killpg(child, signal.SIGKILL)
                break
            for descriptor, _ in poller.poll(None if left is None else left * 1000):
                if descriptor == woken:
                    os.read(woken, CHUNK)
                    self._reap(child)
                elif not self._pass(descriptor, names[descriptor]):
                    poller.unregister(descriptor)
        for descriptor, name in names.items():
            while self._pass(descriptor, name):
                pass
        return self.ended is None

    def _reap(self, child: int) -> None:
        """Take the status of every process that has ended: process 1 is the parent of those whose own parent has."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == child:
                self.ended = os.waitstatus_to_exitcode(status)

    def _pass(self, descriptor: int, name: bytes) -> bool:
        """Pass on what can be read now; whether there was something."""
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return False
        if data:
            self.stream.send(name, data)
        return bool(data)
