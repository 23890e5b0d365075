"""Work on another machine behind one execnet gateway: to pytest-xdist this process looks like a Python interpreter.

    python -m hosts.launcher VISIT       standard input and output: execnet's protocol

One ssh connection carries everything: first a Python and the project, then execnet's protocol.  ssh inherits this process's
standard output for the answers; events come back on ssh's standard error.
"""
import json
import os
import queue
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import CacheError
from hosts.bundle import pack_machinery, python_bundle
from hosts.ssh import FAILED, Host, HostError, complaint, in_a_shell
from kernels.cache import Cache
from vm.image import ImageError, boot_image
from vm.job import Event, Events, Job
from vm.launcher import OWNER_GONE, SessionOver, answer_bootstrap, end_with_session, slot, wait_for_end_signal
from vm.process import DIES_WITH_PARENT

ENDING = 8                                  # seconds that the other machine may take to clean up; see session.session
UNPACK = """\
directory=$(mktemp -d "${{TMPDIR:-/tmp}}/kdrift-XXXXXXXX") || exit
trap 'rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM PIPE
mkdir "$directory/project" "$directory/tmp"
{home}
head -c {machinery} | tar -xf - -C "$directory/project" || exit
head -c {settings} > "$directory/settings" && head -c {libraries} > "$directory/libraries.tar" || exit
head -c {tests} > "$directory/tests.tar" || exit
export TMPDIR="$directory/tmp" PYTHONPATH="$directory/project:$home/site" PYTHONDONTWRITEBYTECODE=1
"$home/python" -m hosts.remote "$directory"
"""
# Where Python is: unpacked from what is sent, or kept by a builder from an earlier visit (hosts.remote).
HOME = """\
home="$directory/home"
mkdir "$home" && head -c {python} | tar -xzf - -C "$home" || exit
"""
KEPT_HOME = """\
home="${{KDRIFT_CACHE:-${{XDG_CACHE_HOME:-$HOME/.cache}}/kdrift}}/images/{key}"
if PYTHONPATH="$home/site" PYTHONDONTWRITEBYTECODE=1 "$home/python" -c "import execnet" < /dev/null > /dev/null 2>&1; then
echo '{{"need": 0}}' >&2
else
echo '{{"need": 1}}' >&2
{home}
fi
"""


@dataclass(frozen=True)
class Visit:
    """What the session tells this process.  `job` is the file of a virtual machine's job, or None for a worker on the host itself."""

    host: Host
    session: str                            # the session's directory
    owner: int                              # the session's process
    events: str                             # file for the events
    project: str                            # the session's; tests run in `cwd` below it
    tests: str                              # archive with the sources of the tests; libraries.tar is in the session's directory
    slots: int                              # workers at a time on this host
    cwd: str = "."
    own_machine: bool = False
    job: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Visit":
        data = json.loads(path.read_text())
        return cls(**{**data, "host": Host(**data["host"])})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    def place(self) -> Path:
        """The directory with this host's slots."""
        place = Path(self.session, f"host-{self.host.name.replace('/', '_')}")
        place.mkdir(exist_ok=True)
        return place


def main(file: str) -> None:
    try:
        visit = Visit.read(Path(file))
    except FileNotFoundError:
        return                              # the session was killed, and its directory is gone
    events = Events(visit.events)
    try:
        end_with_session(visit.owner)
        answer_bootstrap()
        with Cache(say=lambda line: events.add(note=line)) as cache, slot(visit.place(), visit.slots, events):
            work(visit, cache, events)
    except SessionOver as over:
        if over.args[0] == OWNER_GONE:
            shutil.rmtree(visit.session, ignore_errors=True)
    except (HostError, ImageError, CacheError, OSError) as error:
        events.add(end="boot", why=str(error))
    except BaseException:
        events.add(end="lost", why="the launcher failed: " + traceback.format_exc())
        raise


def work(visit: Visit, cache: Cache, events: Events) -> None:
    settings = {"work": "worker", "project": visit.project, "cwd": visit.cwd, "own_machine": visit.own_machine}
    bundle = python_bundle(cache)
    image, home = None, HOME.format(python=bundle.stat().st_size)
    if visit.job:
        job = Job.read(Path(visit.job))
        image = boot_image(cache, job.kernel, lambda: events.add(state="image"))
        settings = {"work": "machine", "job": asdict(job), "image": f"sent-{image.parent.name}",
                    "group": f"sent {job.kernel.key} {job.python}", "python": f"sent-{bundle.parent.name}"}
        home = KEPT_HOME.format(key=settings["python"], home=home)
    events.add(state="sending")
    # The settings have paths of this machine, which no command line shows to that machine's users.
    parts = [bundle.read_bytes(), pack_machinery(), json.dumps(settings, default=str).encode(),
             Path(visit.session, "libraries.tar").read_bytes(), Path(visit.tests).read_bytes()]
    _, machinery, words, libraries, tests = map(len, parts)
    remote = UNPACK.format(home=home, machinery=machinery, settings=words, libraries=libraries, tests=tests)
    with Connection(visit.host, in_a_shell(remote, as_root=visit.own_machine), events) as connection:
        for part in parts if not image or connection.asks() else parts[1:]:
            connection.send(part)
        if image and connection.asks():
            events.add(state="sending")
            send_image(connection, image, job, Path(visit.session))
        connection.pass_on()


def send_image(connection: "Connection", image: Path, job: Job, directory: Path) -> None:
    """Send a line with the size in bytes, then the boot image and the kernel as a compressed archive."""
    with tempfile.NamedTemporaryFile(dir=directory, suffix=".tar.gz") as archive:
        with tarfile.open(archive.name, "w:gz", compresslevel=1, dereference=True) as tar:
            tar.add(image, "initrd")
            tar.add(job.kernel.vmlinuz, "vmlinuz")
        connection.send(f"{os.path.getsize(archive.name)}\n".encode())
        while data := archive.read(1 << 20):
            connection.send(data)


class Connection:
    """One ssh process; a context manager that closes it. If it ended unasked, an event says how."""

    def __init__(self, host: Host, remote: str, events: Events):
        self.host, self.events = host, events
        self.words: list[str] = []              # lines that are not events
        self.answers: queue.SimpleQueue[int | None] = queue.SimpleQueue()       # None in the end
        self.ssh = subprocess.Popen([*DIES_WITH_PARENT, *host.command(remote)], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                                    process_group=0)            # so that Ctrl-C does not reach it
        assert self.ssh.stdin and self.ssh.stderr
        self.input, self.errors = self.ssh.stdin, self.ssh.stderr
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self.input.close()
        except BrokenPipeError:
            pass
        try:
            self.ssh.wait(ENDING)
        except subprocess.TimeoutExpired:
            self.ssh.kill()
            self.ssh.wait()
        self.listener.join(1)
        if kind is None and not self.events.last("end"):
            self.events.add(**self._ending())

    def _ending(self) -> Event:
        last = complaint(self.words)
        if self.ssh.returncode == FAILED:
            return {"end": "lost", "why": last, "host_lost": True}
        if not self.events.last("far"):
            return {"end": "boot", "why": last}
        return {"end": "lost", "why": f"the worker on {self.host.name} exited", "console": self.words[-30:]}

    def _listen(self) -> None:
        """Events go to the session; a need goes to this process."""
        for line in self.errors:
            try:
                event: Event = {**json.loads(line)}
            except (ValueError, TypeError):
                self.words.append(line.decode(errors="replace").rstrip())
                continue
            event.pop("at", None)               # of another clock
            if "need" in event:
                self.answers.put(event["need"])
            else:
                event["far"] = True
                self.events.add(**event)
        self.answers.put(None)

    def asks(self) -> bool:
        """Whether the other side wants what may come next, once it has said so; not if it is gone."""
        answer = self.answers.get()
        if answer is None:
            self.answers.put(None)
        return bool(answer)

    def send(self, data: bytes) -> None:
        try:
            self.input.write(data)
            self.input.flush()
        except BrokenPipeError:
            pass                                # ssh's exit status says more

    def pass_on(self) -> None:
        """Pass on what execnet sends until the other side ends."""
        while self.ssh.poll() is None:
            ready, _, _ = select.select([0], [], [], 0.1)
            if ready:
                data = os.read(0, 1 << 16)
                if not data:
                    wait_for_end_signal()
                self.send(data)


if __name__ == "__main__":
    main(sys.argv[1])
