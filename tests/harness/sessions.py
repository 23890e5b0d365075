"""A session of the suite as a user starts it, in a process and with a temporary directory of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from kernels.cache import Cache, default_root
from kernels.spec import resolve

ROOT = Path(__file__).parents[2]
CASES = "tests/harness/cases"
KERNEL, OTHER = "6.12", "6.1"
MARK = "KDRIFT_HARNESS"                     # in the environment of a session and of all that it starts
LONGEST = 240                               # seconds of wall time for a session that has to boot, on a busy host
TRACES = ("Traceback (most recent call last)", "INTERNALERROR")


class Session:
    """`./kdrift pytest ...`, or `validate`, in the background; a context manager that ends all that it started.

    `case` is a file of tests/harness/cases. Its report and its temporary directory are below `directory`.
    """

    def __init__(self, directory: Path, case: str, *options: str, kernels: Sequence[str] = (KERNEL,), prefix: Sequence[str] = (),
                 program: Sequence[str] = ("./kdrift",), command: str = "pytest", **environment: str):
        self.report, self.temporary, self.log = directory / "report", directory / "tmp", directory / "output"
        self.temporary.mkdir(exist_ok=True)         # the same command may be given again
        self.mark = uuid.uuid4().hex
        self.command = [*prefix, *program, command, "-c", "pytest.ini", f"{CASES}/{case}", f"--report={self.report}",
                        *(f"--kernel={kernel}" for kernel in kernels), *options]
        self.environment = {**os.environ, "TMPDIR": str(self.temporary), **environment, MARK: self.mark}

    def __enter__(self) -> "Session":
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True, preexec_fn=heed_interrupts)
        return self

    def __exit__(self, *exc: object) -> None:
        for pid in self.pids(""):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self, within: float = 0) -> "Session":
        """Wait for its end, and see that nothing is left `within` seconds after it: no process, so no namespace, and no file."""
        self.status = self.process.wait(LONGEST)
        eventually(lambda: not self.leftovers(), within, lambda: f"left behind: {self.leftovers()}\n{self.output}")
        assert not any(line.startswith(TRACES) for line in self.output.splitlines()), self.output
        return self

    def leftovers(self) -> list[str]:
        return [f"process {pid}: {command}" for pid, command in self._processes()] + sorted(os.listdir(self.temporary))

    def pids(self, name: str) -> list[int]:
        """The session's processes with `name` in their command line."""
        return [pid for pid, command in self._processes() if name in command]

    def _processes(self) -> Iterator[tuple[int, str]]:
        wanted = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name), (entry / "cmdline").read_text(errors="replace").replace("\0", " ").strip()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until it has printed `text`."""
        eventually(lambda: self.output.count(text) >= times, LONGEST,
                   lambda: f"{text!r} was not printed {times} times\n{self.output}", lambda: self.process.poll() is not None)

    def wait_for_process(self, name: str, unlike: Sequence[int] = ()) -> int:
        """The only process with `name` in its command line, not counting those in `unlike`."""
        def found() -> list[int]:
            return [pid for pid in self.pids(name) if pid not in unlike]

        eventually(lambda: len(found()) == 1, LONGEST, lambda: f"no process {name!r}: {self.leftovers()}\n{self.output}",
                   lambda: self.process.poll() is not None)
        return found()[0]

    @property
    def results(self) -> dict:
        return json.loads((self.report / "results.json").read_text())

    @property
    def releases(self) -> dict[str, str]:
        """What `uname -r` says on each kernel."""
        return {kernel["label"]: kernel["release"] for kernel in self.results["kernels"]}

    def tests(self, kernel: str = KERNEL) -> dict[str, dict]:
        """The results on one kernel, by the name of the test."""
        found = next(each for each in self.results["kernels"] if each["label"] == kernel)
        return {test["id"].partition("::")[2]: test for test in found["tests"]}

    def outcomes(self, kernel: str = KERNEL) -> dict[str, str]:
        return {name: test["outcome"] for name, test in self.tests(kernel).items()}


def heed_interrupts() -> None:
    """For `preexec_fn`: what a shell runs in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(directory: Path, case: str, *options: str, **settings: object) -> Session:
    """A session from its beginning to its end."""
    with Session(directory, case, *options, **settings) as session:
        return session.end()


def eventually(holds: Callable[[], bool], within: float, why: Callable[[], str], hopeless: Callable[[], bool] = lambda: False) -> None:
    """Wait until `holds`; after `within` seconds, or when there is no hope left, an AssertionError says `why` not."""
    deadline = time.monotonic() + within
    while True:
        lost = hopeless() or time.monotonic() > deadline
        if holds():
            return
        assert not lost, why()
        time.sleep(0.02)


@contextlib.contextmanager
def copied_cache(target: Path, since: float, releases: Iterable[str]) -> Iterator[Path]:
    """A cache of its own, to be damaged: copies of what the usual one holds of these kernels and has handed out `since` (epoch)."""
    with Cache() as usual:
        wanted = [entry.path for entry in usual.entries() if entry.used >= since]
        wanted += [path.parents[1] for release in releases for path in usual.area("kernels").glob(f"*/boot/vmlinuz-{release}")]
        target.mkdir()
        for path in {usual.area("apt"), *wanted}:
            place = target / path.relative_to(usual.root)
            place.parent.mkdir(exist_ok=True)
            subprocess.run(["cp", "-a", "--sparse=always", path, place], check=True)
    try:
        yield target
    finally:
        shutil.rmtree(target)


def image_of(series: str) -> Path:
    """The image of the series' newest kernel in the cache, which has its modules beside it; fetched if there is none."""
    if images := sorted(default_root().glob(f"kernels/*/boot/vmlinuz-{series}.*")):
        return images[-1]
    with Cache() as cache:
        return resolve(series, cache).vmlinuz


def one_line(output: str, *words: str) -> str:
    """The only line of `output` that has all of `words`."""
    lines = [line for line in output.splitlines() if all(word in line for word in words)]
    assert len(lines) == 1, f"{len(lines)} lines with {words}:\n{output}"
    return lines[0]
