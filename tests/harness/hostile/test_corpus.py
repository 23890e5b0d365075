"""Whatever kdrift is given, the worst that happens is one clear line and a documented exit status."""

import argparse
import contextlib
import json
import os
import resource
import signal
import sys
import traceback

import pytest

from cli.__main__ import main
from cli.refusal import refuse
from common.errors import FetchError
from common.status import Exit
from kernels import modules
from kernels.cache import Cache
from report import chance, expected, known
from session.plugin import Report
from session.runs import find_kernels
from tests.harness.hostile import inputs as corpus

PATIENCE = 120                              # seconds of wall time on a busy host; all inputs together take some 40
MOST_MEMORY = 3 << 30                       # bytes of address space beyond what the test's process has
MOST_FILE = 256 << 20                       # bytes of a file


def kernel(path):
    """What a session does with --kernel PATH before a machine starts."""
    options = argparse.Namespace(clock="virtual", offline=True, mirror=None, devices=[], allow_unverified=True)
    try:
        with Cache() as cache:
            [run] = find_kernels([os.fspath(path)], options, cache, boots_here=False)
        if run.error:
            return refuse(run.error, Exit.NOT_BOOTED)
        modules.stage(path.parent / "stage", run.kernel)
    except pytest.UsageError as error:
        return refuse(error)
    except FetchError as error:
        return refuse(error, Exit.NOT_BOOTED)
    return Exit.OK


def baseline(path):
    try:
        Report.read_baseline(os.fspath(path), ["6.12"])
    except pytest.UsageError as error:
        return refuse(error)
    return Exit.OK


def listed(module, error):
    """What a session does with one of the project's own lists."""
    def load(path):
        try:
            module(path)
        except error as why:
            return refuse(why)
        return Exit.OK
    return load


TAKES = {"package.deb": kernel, "package.rpm": kernel, "bzImage": kernel, "baseline.json": baseline,
         "results.json": lambda path: main(["merge", os.fspath(path), "--report", os.fspath(path.parent / "report"), "--validate"]),
         "known_issues.toml": listed(lambda path: known.load.__wrapped__(path, with_signatures=False), known.KnownIssuesError),
         "changes.toml": listed(expected.load.__wrapped__, expected.ExpectedError),
         "chance.json": listed(chance.stored, chance.ChanceError)}


class Done:
    def __init__(self, status, said, memory):
        self.status, self.said, self.memory = status, said, memory


@pytest.fixture
def room(tmp_path, monkeypatch):
    """All of kdrift's directories, and one beside them with a secret."""
    for name in ("given", "outside", "tmp", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside/secret").write_bytes(corpus.SECRET)
    for name, place in (("KDRIFT_CACHE", "cache"), ("TMPDIR", "tmp"), ("HOME", "home")):
        monkeypatch.setenv(name, str(tmp_path / place))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path / "given")
    return tmp_path


@pytest.fixture
def take(room, inputs):
    """take(command, *words): what the command does in a process of its own, with bounded time, memory and files."""
    def run(command, *words):
        inputs["inputs of the corpus"] = inputs.get("inputs of the corpus", 0) + 1
        before = sorted(path for path in room.rglob("*") if "outside" in path.parts)
        child = os.fork()
        if not child:
            status = 99
            with contextlib.suppress(BaseException):
                status = in_a_child(room, command, words)
            os._exit(status)
        _pid, ended, used = os.wait4(child, 0)
        said = (room / "said").read_text(errors="surrogateescape")
        assert "Traceback" not in said, said
        assert os.WIFEXITED(ended), f"killed by {os.WTERMSIG(ended)}\n{said}"
        assert sorted(path for path in room.rglob("*") if "outside" in path.parts) == before
        assert (room / "outside/secret").read_bytes() == corpus.SECRET
        for path in (room / "cache").rglob("*") if (room / "cache").exists() else ():
            assert path.is_symlink() or not path.is_file() or corpus.SECRET not in path.read_bytes(), path
        assert not list((room / "tmp").iterdir())
        return Done(os.WEXITSTATUS(ended), said, used.ru_maxrss << 10)
    return run


def in_a_child(room, command, words):
    """Its exit status, as Python would give it."""
    signal.alarm(PATIENCE)
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_FILE, MOST_FILE))
    with open(room / "said", "w", errors="surrogateescape") as file:
        sys.stdout = sys.stderr = file
        try:
            return int(command(*words))
        except SystemExit as over:
            return int(over.code or 0)
        except BaseException:
            traceback.print_exc(file=file)
            return 98
        finally:
            file.flush()


def is_refused(done, *statuses):
    """In one line, which any terminal can show."""
    assert done.status in (statuses or (2, 125)), done.said
    assert done.said.startswith("kdrift: ") and done.said.count("\n") == 1 and done.said[:-1].isprintable(), repr(done.said)
    assert len(done.said) < 2000


@pytest.mark.parametrize("name", corpus.WHOLE)
@pytest.mark.parametrize("damage", corpus.DAMAGES)
def test_a_damaged_file_is_refused_in_one_line_or_still_whole(room, take, name, damage):
    path = room / "given" / name
    path.write_bytes(corpus.DAMAGES[damage](corpus.WHOLE[name]()))
    done = take(TAKES[name], path)
    if done.status not in (0, 6) or damage not in ("flipped", "empty"):
        is_refused(done)


@pytest.mark.parametrize("name", corpus.ESCAPING)
def test_a_package_writes_and_reads_nothing_outside(room, take, name):
    path = room / "given/package.deb"
    path.write_bytes(corpus.ESCAPING[name](room / "outside"))
    done = take(kernel, path)
    if done.status:
        is_refused(done)
    assert done.memory < 2 << 30
    for found in (room / "cache").rglob("*"):
        assert not found.lstat().st_mode & 0o6000
        assert found.is_dir() or found.is_file() and not found.is_symlink(), found


@pytest.mark.parametrize("name", corpus.RELEASES)
def test_an_image_with_a_strange_release_is_refused(room, take, name):
    path = room / "given/bzImage"
    path.write_bytes(corpus.image(corpus.RELEASES[name]))
    done = take(kernel, path)
    if done.status or name not in ("line end", "quotes"):
        is_refused(done)


@pytest.mark.parametrize("name", corpus.NAMES)
@pytest.mark.parametrize("command", ["kernel", "merge"])
def test_a_strange_name_is_refused(room, take, command, name):
    word = corpus.NAMES[name]
    if command == "merge":
        is_refused(take(main, ["merge", word]))
    else:
        is_refused(take(lambda: kernel_named(word)))


def kernel_named(word):
    options = argparse.Namespace(clock="virtual", offline=True, mirror=None, devices=[], allow_unverified=True)
    try:
        with Cache() as cache:
            [run] = find_kernels([word], options, cache, boots_here=False)
    except pytest.UsageError as error:
        return refuse(error)
    return refuse(run.error, Exit.NOT_BOOTED) if run.error else Exit.OK


@pytest.mark.parametrize("name", corpus.SHOWN)
def test_hostile_words_are_shown_as_text(room, take, name):
    path = room / "given/results.json"
    path.write_bytes(corpus.SHOWN[name]())
    done = take(TAKES["results.json"], path)
    if done.status == 2:
        is_refused(done)
        return
    assert done.status in (0, 1, 6), done.said
    assert "\x1b" not in done.said and "\x07" not in done.said, repr(done.said)
    page = (room / "given/report/index.html").read_text()
    assert corpus.HTML not in page and json.loads((room / "given/report/results.json").read_text())


def test_a_file_of_a_million_tests_is_refused_or_read_in_bounded_memory(room, take):
    path = room / "given/results.json"
    path.write_bytes(corpus.many_tests())
    is_refused(take(TAKES["results.json"], path))


def test_every_kind_of_input_has_its_reader():
    assert TAKES.keys() == corpus.WHOLE.keys()
