"""Troubles of the machine that kdrift runs on: the same exit status in all commands, one line, and nothing half-written."""
import errno
import os
import re
import subprocess
import time
from types import SimpleNamespace

import pytest

from cli.refusal import refuse_error
from common.errors import CacheError, FetchError, NoSpaceError, SpecError, UnwritableError, is_full, trouble_of
from common.project import PROJECT
from common.status import Bisect, Exit
from common.temporary import is_full_at
from hosts import launcher as visits
from hosts.ssh import Host
from kernels.debian import RETRY_AFTER, Archive
from kernels.extract import Kernel
from report.results import KernelResult, TestResult
from report.status import bisect_status, exit_status
from vm import launcher, state
from vm.image import ImageError
from vm.job import Events, Job
from vm.outlet import Misbehaved
from vm.qemu import VMError, kernel_line

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x")
TEST = "tests/a.py::test_a"


@pytest.mark.parametrize("error, status, line", [
    (FULL, 3, "/x: No space left on device"), (OSError(errno.EDQUOT, "Disk quota exceeded"), 3, "here: Disk quota exceeded"),
    (NoSpaceError("no space left for /c"), 3, "no space left for /c"), (VMError("QEMU exited\nmore"), 3, "QEMU exited"),
    (ImageError("cpio: No space left on device"), 3, "cpio: No space left on device"), (ImageError("no cpio"), 125, "no cpio"),
    (FetchError("no answer"), 125, "no answer"), (UnwritableError("read-only"), 2, "read-only"), (CacheError("broken"), 3, "broken"),
    (SpecError("no kernel"), 2, "no kernel"), (OSError("odd"), 3, "odd"),
])
def test_an_error_has_the_same_status_in_all_commands(capsys, error, status, line):
    assert refuse_error(error, "here") == status
    assert capsys.readouterr().err == f"kdrift: {line}\n"


def kernel(error=None, *tests):
    return KernelResult("6.12", "6.12", error=error, tests=list(tests))


@pytest.mark.parametrize("error, status, bisecting", [
    ("no space left for a saved state", Exit.LOST, Exit.BISECT_USAGE), ("/tmp: No space left on device", Exit.LOST, Exit.BISECT_USAGE),
    ("the kernel did not boot:\nNo space left on device", Exit.NOT_BOOTED, Bisect.SKIP), ("no answer", Exit.NOT_BOOTED, Bisect.SKIP),
])
def test_a_full_disk_says_nothing_of_a_kernel(error, status, bisecting):
    """Not even that a commit is to be skipped: the bisection stops."""
    kernels = [kernel(None, TestResult(TEST)), kernel(error)]
    assert exit_status(kernels) == status
    assert bisect_status(status, kernels, False) == bisecting


def test_an_event_is_whole_or_not_there(tmp_path):
    events = Events(tmp_path / "events")
    events.add(state="booting")
    limited = ["prlimit", f"--fsize={(tmp_path / 'events').stat().st_size + 20}", f"{PROJECT}/.venv/bin/python3", "-c", f"""
import errno, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.path.insert(0, {str(PROJECT)!r})
from vm import job
job.is_full = lambda error: error.errno == errno.EFBIG
job.Events({str(tmp_path / 'events')!r}).add(state="running")"""]
    subprocess.run(limited, check=True)
    events.add(end="lost", why="x")
    assert [event.get("state") or event["end"] for event in events.read()] == ["booting", "lost"]


def test_a_disk_is_full_where_a_few_pages_have_no_room(tmp_path):
    script = f"""mount -t tmpfs -o size=64k tmpfs {tmp_path} && cd {PROJECT} && .venv/bin/python3 -c '
from pathlib import Path
from common.temporary import is_full_at
print(is_full_at(Path("{tmp_path}")))
Path("{tmp_path}/file").write_bytes(bytes(60 << 10))
print(is_full_at(Path("{tmp_path}")))'"""
    said = subprocess.run(["unshare", "-rm", "sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["False", "True"]
    assert not is_full_at(tmp_path)
    assert not is_full_at(tmp_path / "none")


@pytest.mark.parametrize("error", [Misbehaved("a message that no worker sends"), VMError("QEMU exited"), OSError(errno.EIO, "I/O")])
def test_whatever_happens_where_the_disk_is_full_is_put_down_to_that(monkeypatch, tmp_path, error):
    """Half of a guest's message is none that a worker sends."""
    for is_so, seen in ((True, OSError), (False, type(error))):
        monkeypatch.setattr(state, "is_full_at", lambda directory, is_so=is_so: is_so)
        with pytest.raises(seen) as raised, state.full_disk_told(tmp_path / "session/machine"):
            raise error
        assert is_full(raised.value) == is_so
    assert trouble_of(raised.value)


def test_a_saved_state_is_kept_where_the_machine_that_reads_it_has_no_room(monkeypatch, tmp_path):
    def fails():
        raise VMError("restoring the saved state failed: killed by SIGBUS")

    machine = SimpleNamespace(directory=tmp_path / "session/machine", check_directory=lambda: None, start=lambda state: None, load=fails,
                              stop=lambda: None)
    cache = SimpleNamespace(discard=lambda path: pytest.fail("discarded"))
    monkeypatch.setattr(state, "is_full_at", lambda directory: True)
    with pytest.raises(OSError, match="No space left"):
        state.load(machine, lambda: tmp_path, cache, None, None)


def test_a_machines_memory_has_all_its_room_before_it_starts(tmp_path):
    script = f"""mount -t tmpfs -o size=3m tmpfs {tmp_path} && cd {PROJECT} && .venv/bin/python3 -c '
from pathlib import Path
from vm.line import Line
try:
    Line(Path("{tmp_path}")).prepare()
except OSError as error:
    print(error)'"""
    said = subprocess.run(["unshare", "-rm", "sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert said == f"[Errno 28] No space left on device: '{tmp_path}/input'\n"


def test_a_launcher_reports_a_full_disk(monkeypatch, tmp_path):
    job = Job(kernel=Kernel("6.12", "6.12", None, None, tmp_path, None, "key"), clock="virtual", accel="tcg", slots=1, fresh_boot=False,
              devices=[], deadline=1, python="", cwd="", session=str(tmp_path), owner=os.getppid(), events=str(tmp_path / "events"))
    job.write(tmp_path / "job")

    def run(*_words):
        raise FULL

    monkeypatch.setattr(launcher, "run", run)
    monkeypatch.setattr(launcher, "end_with_session", lambda owner: None)
    launcher.main(str(tmp_path / "job"), bootstrap=lambda: None)
    end = Events(tmp_path / "events").last("end")
    assert (end["end"], end["why"]) == ("boot", "/x: No space left on device")


@pytest.mark.parametrize("ago, failed", [(10, True), (RETRY_AFTER + 10, False), (-10, False)])
def test_a_failure_in_the_future_is_none(tmp_path, ago, failed):
    """The clock was set back since then."""
    (tmp_path / "failed").touch()
    os.utime(tmp_path / "failed", (time.time() - ago,) * 2)
    assert Archive.failed_recently(SimpleNamespace(root=tmp_path)) == failed


@pytest.mark.parametrize("line, shown", [
    ('console=ttyS0 rdinit="/home/jane/kdrift/python3" -- /init', "console=ttyS0 rdinit=/home/jane/kdrift/python3 -- /init"),
    ('rdinit="/home/jane doe/python3"', None), ('dyndbg="file x +p" rdinit="/home/x"', None), ("x" * 1000, None)])
def test_a_kernels_command_line_is_in_a_file_that_can_hold_it(tmp_path, line, shown):
    words = kernel_line(line, tmp_path)
    if shown is None:
        assert words[0] == "-append" and line.replace('"/home/x"', "/home/x") == words[1]
        return
    assert words == ["-readconfig", str(tmp_path / "line")]
    assert (tmp_path / "line").read_text() == f'[machine]\n  append = "{shown}"\n'


def test_the_command_line_on_another_machine_has_no_path_of_this_one(monkeypatch, tmp_path):
    """Every user of it may see that, and what comes by standard input nobody."""
    (tmp_path / "libraries.tar").write_bytes(b"libraries"), (tmp_path / "tests.tar").write_bytes(b"tests")
    (tmp_path / "python.tar.gz").write_bytes(b"python")
    sent, commands = [], []

    class Connection:
        def __init__(self, host, remote, events):
            commands.append(" ".join(host.command(remote)))

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            pass

        send = staticmethod(sent.append)

        def pass_on(self):
            pass

    monkeypatch.setattr(visits, "Connection", Connection)
    monkeypatch.setattr(visits, "python_bundle", lambda cache: tmp_path / "python.tar.gz")
    visit = visits.Visit(Host.parse("jane@lab1"), str(tmp_path), 1, str(tmp_path / "events"), str(PROJECT), str(tmp_path / "tests.tar"), 1)
    visits.work(visit, None, Events(tmp_path / "events"))
    assert not re.search(f"{PROJECT}|{tmp_path}", commands[0])
    assert sent[0] == b"python" and sent[2].startswith(b'{"work": "worker"') and sent[3:] == [b"libraries", b"tests"]
    assert [f"head -c {len(data)} " in commands[0] for data in sent] == [True] * 5


def test_counts_of_hostile_inputs_are_printed_whichever_worker_has_tried_them():
    """./kdrift selftest has two."""
    words = ["-c", "tests/harness/pytest.ini", "-n", "2", "-q", "tests/harness/hostile/test_corpus.py", "-k", "strange_name and escapes"]
    done = subprocess.run(["./kdrift", "pytest", *words], cwd=PROJECT, capture_output=True, text=True)
    assert "hostile input: 2 inputs of the corpus\n" in done.stdout, done.stdout + done.stderr
