"""The cache: entries are complete or absent, whoever is killed, and damage is noticed."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common.errors import CacheError
from kernels.cache import Cache, default_root

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path):
    said = []
    with Cache(tmp_path, say=said.append) as cache:
        cache.said = said
        yield cache


def write(directory: Path) -> dict:
    """A builder: two files, one below a directory."""
    (directory / "below").mkdir()
    (directory / "below/file").write_text("content")
    (directory / "image").write_bytes(bytes(5000))
    return {"files": 2}


def test_entry_is_built_once_with_its_facts(cache):
    built = []
    path = cache.build("images", "k", lambda directory: built.append(1) or write(directory), {"release": "6.1"})

    assert cache.build("images", "k", built.append) == path
    assert built == [1] and cache.meta(path) == {"release": "6.1", "files": 2}
    assert (path / "below/file").read_text() == "content"


def test_failed_builder_leaves_nothing(cache):
    def fail(directory):
        write(directory)
        raise KeyError("broken")

    with pytest.raises(KeyError):
        cache.build("images", "k", fail)
    assert list(cache.area("images").iterdir()) == [] and list(cache.area("tmp").iterdir()) == []


@pytest.mark.parametrize(("spoil", "damage"), [
    (lambda path: os.truncate(path / "image", 10), "image has 10 bytes instead of 5000"),
    (lambda path: (path / "below/file").unlink(), "below/file is missing"),
    (lambda path: (path / "image").write_bytes(b"x" * 5000), "SHA-256 mismatch in image"),
    (lambda path: (path / ".manifest.json").write_text("{"), "no manifest")])
def test_damage_is_noticed_and_repaired_with_one_line(cache, spoil, damage):
    path = cache.build("images", "k", write)
    spoil(path)
    assert cache.damage(path) == damage and not cache.valid(path)

    assert cache.valid(cache.build("images", "k", write))
    assert cache.said == [f"cache entry images/k is damaged ({damage}): rebuilding it"]


def test_touched_file_with_the_same_contents_is_no_damage(cache):
    path = cache.build("images", "k", write)
    os.utime(path / "image", (1, 1))

    assert cache.valid(path)


def test_deep_check_sees_what_size_and_time_hide(cache):
    path = cache.build("images", "k", write)
    times = (path / "image").stat()
    (path / "image").write_bytes(b"x" * 5000)
    os.utime(path / "image", ns=(times.st_atime_ns, times.st_mtime_ns))

    assert cache.valid(path) and not cache.valid(path, deep=True)


def test_entry_is_none_when_missing_or_damaged(cache):
    assert cache.entry("images", "k") is None
    path = cache.build("images", "k", write)
    assert cache.entry("images", "k") == path
    os.truncate(path / "image", 0)
    assert cache.entry("images", "k") is None


def test_killed_builder_leaves_nothing_that_counts(tmp_path):
    program = ("import sys, time; from pathlib import Path; from kernels.cache import Cache\n"
               "def build(directory):\n"
               "    (directory / 'part').write_text('x'); print('half', flush=True); time.sleep(60)\n"
               "Cache(Path(sys.argv[1])).build('images', 'k', build)")
    line = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline() == b"half\n"
        with Cache(tmp_path) as other:
            assert list(other.area("tmp").glob("*/entry/part")), "a living process keeps its temporary files"
        process.send_signal(signal.SIGKILL)

    with Cache(tmp_path) as after:
        assert list(after.area("tmp").iterdir()) == [] and after.entries() == []
        assert after.build("images", "k", write).is_dir()


def test_concurrent_builders_build_once(tmp_path):
    built = multiprocessing.get_context("fork").Value("i", 0)

    def build(directory):
        with built.get_lock():
            built.value += 1
        write(directory)

    def run():
        with Cache(tmp_path, say=lambda line: None) as cache:
            cache.build("images", "k", build)

    processes = [multiprocessing.get_context("fork").Process(target=run) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6 and built.value == 1


def test_waiting_for_another_process_is_said(tmp_path):
    said, waiting = [], threading.Event()

    def say(line):
        said.append(line)
        waiting.set()

    with Cache(tmp_path) as one, Cache(tmp_path, say=say) as other:
        with one.lock("images-k"):
            thread = threading.Thread(target=other.build, args=("images", "k", write))
            thread.start()
            assert waiting.wait(10)
            assert not (tmp_path / "images/k").exists()
        thread.join()
    assert said == ["waiting for another process that is building images/k"]


def test_lock_taken_elsewhere_is_refused_without_waiting(tmp_path):
    with Cache(tmp_path) as one, Cache(tmp_path) as other, one.lock("apt", shared=True):
        with other.lock("apt", shared=True, wait=False):
            pass
        with pytest.raises(BlockingIOError), other.lock("apt", wait=False):
            pass


def test_prune_frees_what_is_not_in_use_and_names_the_rest(tmp_path):
    with Cache(tmp_path) as user, Cache(tmp_path) as pruner:
        used = user.build("images", "used", write)
        pruner.build("images", "idle", write)
        pruner.close()
        (tmp_path / "apt/index.json").write_text("x" * 1_000_000)
        freed, busy = pruner.prune()

        assert busy == ["images/used"] and user.valid(used)
        assert not (tmp_path / "images/idle").exists() and list((tmp_path / "apt").iterdir()) == []
        assert 1_000_000 + 5000 <= freed < 1_100_000
    with Cache(tmp_path) as later:
        assert later.prune()[1] == [] and later.entries() == []


def test_usage_counts_bytes_by_area(cache):
    cache.build("states", "s", lambda directory: (directory / "ram").write_bytes(b"x" * 1_000_000) and None)

    assert 1_000_000 <= cache.usage()["states"] < 1_100_000 and cache.usage()["images"] == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_one_line_and_leaves_nothing(cache, number):
    def fill(directory):
        (directory / "half").write_text("x")
        raise OSError(number, os.strerror(number))

    with pytest.raises(CacheError, match="no space left for the cache .*--prune"):
        cache.build("states", "s", fill)
    assert list(cache.area("tmp").iterdir()) == [] and cache.entries() == []


def test_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot write to the cache .*KDRIFT_CACHE"):
        Cache(tmp_path / "file/cache")


def test_builder_error_about_another_file_passes_through(cache):
    def read(_directory):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/secret")

    with pytest.raises(PermissionError):
        cache.build("images", "k", read)


@pytest.mark.parametrize(("environment", "expected"), [
    ({"KDRIFT_CACHE": "/here", "XDG_CACHE_HOME": "/xdg"}, "/here"), ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/kdrift"),
    ({"HOME": "/home/me"}, "/home/me/.cache/kdrift")])
def test_cache_is_where_the_environment_says(monkeypatch, environment, expected):
    for name in ("KDRIFT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert default_root() == Path(expected)


def test_newer_entries_of_a_group_replace_the_oldest(tmp_path):
    """A saved state takes hundreds of megabytes, and every edit of what goes into it makes another."""
    for key in ("a", "b", "c"):
        with Cache(tmp_path) as cache:
            cache.build("states", key, write_ram, {"group": "6.12"})
    with Cache(tmp_path) as cache:
        cache.build("states", "other", write_ram, {"group": "6.1"})
        assert [entry.key for entry in cache.entries("states")] == ["b", "c", "other"]


def write_ram(entry):
    (entry / "ram").write_text("contents")
