"""What runs on the other machine: `python -m hosts.remote DIRECTORY`, with its settings there; the shell removes it afterwards.

Standard input and output carry execnet's protocol, standard error carries events, one JSON object per line.  A child does the work: a
pytest worker in private namespaces, or a virtual machine.  This process ensures that nothing outlives the connection.
"""
import ctypes
import importlib
import json
import os
import select
import shutil
import signal
import sys
import tarfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
POLLRDHUP = 0x2000
GRACE = 0.5                                 # seconds for the work to end by itself when the connection is closed
PATIENCE = 5                                # seconds for a test to undo its changes


def main(settings: dict[str, Any]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGHUP, ended)
    # An interrupted test undoes its changes; a virtual machine's launcher handles SIGTERM.
    work, order = {"worker": (work_for_pytest, signal.SIGINT), "machine": (run_machine, signal.SIGTERM)}[settings["work"]]
    child = start(work, settings)
    events = Tail(Path(settings["directory"], "events"))
    try:
        watch(child, order, events)
    finally:
        end_all()
        events.pass_on()


def ended(*_: object) -> None:
    raise SystemExit


def say(**event: object) -> None:
    with suppress(OSError):                 # nobody listens anymore
        os.write(2, json.dumps({"at": time.time(), **event}).encode() + b"\n")


def start(work: Callable[[dict[str, Any]], None], settings: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        status = 1
        try:
            work(settings)
            status = 0
        except Unusable as error:
            say(end="boot", why=str(error))
        except Damaged as error:
            say(end="lost", why=str(error))
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    return child


class Unusable(Exception):
    """This machine cannot do the work; the message says why in one line."""


class Damaged(Exception):
    """What this machine kept was damaged, and is removed: the next visit brings it anew."""


class Tail:
    """New lines in the event file of a virtual machine's launcher."""

    def __init__(self, path: Path):
        self.path, self.read = path, 0

    def pass_on(self) -> None:
        with suppress(FileNotFoundError, BrokenPipeError):
            data = self.path.read_bytes()[self.read:]
            whole = data[:data.rfind(b"\n") + 1]
            os.write(2, whole)
            self.read += len(whole)


def watch(child: int, order: int, events: Tail) -> None:
    """Wait until the work is done.  When the connection is closed the work gets a moment to notice, then an order to end."""
    poller = select.poll()
    poller.register(0, POLLRDHUP)
    poller.register(1, 0)
    while not poller.poll(100):
        events.pass_on()
        if has_ended(child, within=0):
            return
    if not has_ended(child, GRACE):
        os.kill(child, order)
        has_ended(child, PATIENCE)


def has_ended(child: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def end_all() -> None:
    """Kill every descendant: orphans become children of this process (PR_SET_CHILD_SUBREAPER)."""
    with suppress(ChildProcessError, FileNotFoundError):
        while True:
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
            os.waitpid(-1, 0)


def work_for_pytest(settings: dict[str, Any]) -> None:
    """One worker, as in a guest, but in private namespaces.  Raises Unusable."""
    directory = Path(settings["directory"])
    project = directory / "project"
    for name in ("libraries.tar", "tests.tar"):
        with tarfile.open(directory / name) as sources:
            for member in sources.getmembers():
                member.name = member.name.removeprefix(f"{settings['project'].lstrip('/')}/")
            extract(sources, project)
    importlib.invalidate_caches()
    from execnet.gateway_base import get_execmodel, init_popen_io, serve

    from fixtures.machine import CLOCK
    from netns.errors import IsolationError
    from netns.hosts import isolate
    os.environ["KDRIFT_PROJECTS"] = json.dumps([settings["project"], str(project)])
    if settings["own_machine"]:
        os.environ[CLOCK] = "real"     # as in a guest: the whole machine belongs to the tests
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    try:
        isolate.enter()
    except IsolationError as error:
        raise Unusable(str(error)) from None
    where = project / settings["cwd"]
    where.mkdir(parents=True, exist_ok=True)        # it may have none of the tests
    os.chdir(where)
    say(state="running")
    io = init_popen_io(get_execmodel("main_thread_only"))
    serve(io, id="far-worker")              # type: ignore[arg-type]  # execnet's Popen2IO lacks what serve() does not call


def extract(archive: tarfile.TarFile, target: Path) -> None:
    """Unpack regular files, below the target (tarfile has filters only since 3.11.4).  Raises Unusable."""
    for member in archive.getmembers():
        if not member.isreg() or member.name.startswith("/") or ".." in member.name.split("/"):
            raise Unusable(f"{member.name!r} was sent, which is no file of the session's")
        archive.extract(member, target)


def run_machine(settings: dict[str, Any]) -> None:
    """Run a virtual machine as vm.launcher does; the session sends Python and the boot image if the cache lacks them.  Raises Unusable."""
    from common.errors import CacheError
    from kernels.cache import Cache
    from kernels.extract import Kernel
    from vm import launcher
    from vm.job import Job
    directory = settings["directory"]
    try:
        with Cache(say=lambda line: say(note=line)) as cache:
            cache.build("images", settings["python"], keep_python, {"group": f"sent python {settings['job']['python']}"})
            image = cache.build("images", settings["image"], receive_image, {"group": settings["group"]})
            say(need=0)
            kernel = Kernel(**{**settings["job"].pop("kernel"), "vmlinuz": image / "vmlinuz", "modules": None})
            job = Job(**{**settings["job"], "kernel": kernel, "initrd": str(image / "initrd"), "slots": 1, "session": directory,
                         "tests": f"{directory}/tests.tar", "owner": os.getppid(), "events": f"{directory}/events"})
            job.write(Path(directory, "job"))
            launcher.main(f"{directory}/job", bootstrap=lambda: None)
    except CacheError as error:
        raise Unusable(str(error)) from None


def keep_python(target: Path) -> None:
    """For later visits; see hosts.launcher. Raises Damaged if it is this one that was kept."""
    try:
        shutil.copytree(Path(sys.executable).parent, target, dirs_exist_ok=True)
    except FileNotFoundError:
        raise Damaged("the Python that this machine kept was damaged") from None


def receive_image(target: Path) -> None:
    say(need=1)
    with open(0, "rb", buffering=0, closefd=False) as line:
        size = int(b"".join(iter(lambda: line.read(1), b"\n")))
    archive = target / "sent"
    with open(archive, "wb") as file:
        while size:
            data = os.read(0, min(size, 1 << 20))
            if not data:
                raise Unusable("the connection closed while the boot image was transferred")
            size -= file.write(data)
    with tarfile.open(archive) as tar:
        extract(tar, target)
    archive.unlink()


if __name__ == "__main__":
    main({**json.loads(Path(sys.argv[1], "settings").read_text()), "directory": sys.argv[1]})
