"""Sessions that are killed at any moment, meet another, or find a disk full, a place read-only, or the clock set back.

The mirror and its packages are stand-ins, and so is QEMU: it takes a moment and ends, so that no kernel boots.
"""
import os
import random
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.debian_archive import configure, new_archive
from tests.harness.sessions import KERNEL, OTHER, ROOT, Session, one_line, run

CASE, OPTIONS = "test_outcomes.py", ("-k", "test_passes", "--slots=2")
KERNELS = {KERNEL: "6.12.0-9-cloud-amd64", OTHER: "6.1.0-9-cloud-amd64"}
QEMU = """#!/bin/sh
case "$*" in --version) echo QEMU emulator version 7.2.22; exit;; esac
exec sleep 0.5
"""
READ_ONLY = ["unshare", "-rm", "sh", "-c",
             'mount --bind "$PROJECT" "$PROJECT" && mount -o remount,bind,ro "$PROJECT" && mount -t tmpfs -o ro tmpfs "$HOME" && '
             'cd "$PROJECT" && exec "$@"', "sh"]
SMALL_DISK = ["unshare", "-rm", "sh", "-c",
              'mkdir -p "$DISK" && mount -t tmpfs -o size="$SIZE" tmpfs "$DISK" && { "$@"; status=$?; '
              'ls -A "$DISK"/tmp "$DISK"/*.part 2>&-; exit $status; }', "sh"]
CLOCK_SET_BACK = [f"{ROOT}/.venv/bin/python3", "-c", """
import sys, time
real, began = time.time, time.monotonic()
time.time = lambda: real() - 3600 * (time.monotonic() > began + 1)
sys.path.insert(0, ".")
from cli.__main__ import main
sys.exit(main(sys.argv[1:]))"""]
USAGE, LOST, NOT_BOOTED = 2, 3, 125
HALF = ("tmp/*", "apt/*.[0-9]*", "apt/sources/*.[0-9]*")      # of a cache: what is not whole yet
SOON = 20                                   # seconds in which all must be gone


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A served archive with both kernels, apt's configuration that names it, and the stand-in for QEMU; the settings of a session."""
    root = tmp_path_factory.mktemp("kills")
    (root / "archive").mkdir(), (root / "bin").mkdir()
    program = root / "bin/qemu-system-x86_64"
    program.write_text(QEMU)
    program.chmod(0o755)
    with new_archive(root / "archive") as archive, pytest.MonkeyPatch.context() as patch:
        for series, release in KERNELS.items():
            archive.add_kernel(release, f"{series}.99-1")
        archive.publish()
        with archive.serve() as address:
            configure(root, patch, f"deb [signed-by={archive.keyring}] {address} bookworm main\n")
            patch.setenv("PATH", str(program.parent), prepend=":")
            yield archive


@pytest.fixture(scope="module")
def usual(place, tmp_path_factory):
    """A session that nobody disturbs, its cache, which has all that it needs, and how long such a session takes at most (s)."""
    directory = tmp_path_factory.mktemp("usual")
    run(directory, CASE, *OPTIONS, **settings(directory))
    forget_kernels(directory / "cache")
    began = time.monotonic()
    session = run(directory, CASE, *OPTIONS, **settings(directory))
    return session, directory / "cache", time.monotonic() - began


def settings(directory):
    return {"kernels": list(KERNELS), "command": "validate", "KDRIFT_CACHE": str(directory / "cache")}


def forget_kernels(cache):
    """So that they are fetched again; the boot images, which take longest, stay."""
    for area in ("kernels", "apt"):
        shutil.rmtree(cache / area)


def result(session):
    return session.status, [(kernel["label"], kernel["release"], kernel["error"], kernel["tests"]) for kernel in session.results["kernels"]]


def half_written(cache):
    """What a killed process may have left in a cache: nobody looks at it again."""
    return sorted(str(path.relative_to(cache)) for path in [path for pattern in HALF for path in cache.glob(pattern)])


def surroundings():
    """Mounts, and network namespaces that have a name."""
    names = Path("/run/netns")
    return Path("/proc/self/mountinfo").read_text(), sorted(os.listdir(names)) if names.exists() else []


@contextmanager
def seeded(option):
    """The chance of one test; a failure names its seed."""
    seed = option if option is not None else random.SystemRandom().randrange(1 << 32)
    try:
        yield random.Random(seed)
    except AssertionError as failure:
        raise AssertionError(f"with --kill-seed={seed}: {failure}") from failure


def test_killed_session_leaves_nothing_and_works_again(usual, tmp_path, request, inputs):
    session, cache, longest = usual
    before, hit, troubles = surroundings(), 0, []
    with seeded(request.config.option.kill_seed) as chance:
        for number in range(request.config.option.kills):
            moment, directory = chance.uniform(0, longest), tmp_path / f"{number}"
            directory.mkdir()
            if chance.random() < 0.5:
                forget_kernels(cache)
            given = {**settings(directory), "KDRIFT_CACHE": str(cache)}
            try:
                with Session(directory, CASE, *OPTIONS, **given) as killed:
                    time.sleep(moment)
                    killed.process.send_signal(signal.SIGKILL)
                    killed.end(within=SOON)
                hit += killed.status == -signal.SIGKILL
                again = run(directory, CASE, *OPTIONS, **given)
                assert result(again) == result(session), again.output
                assert not (left := half_written(cache)), f"left in the cache: {left}"
                assert not (left := list(again.report.glob("*.part"))), f"left in the report: {left}"
                assert surroundings() == before
            except AssertionError as trouble:
                troubles.append(f"kill {number} after {moment:.3f} s of {longest:.3f}: {trouble}")
        assert not troubles, f"{len(troubles)} of {request.config.option.kills}\n" + "\n".join(troubles)
    inputs["sessions killed"] = hit
    assert session.status == NOT_BOOTED


def test_two_sessions_share_a_cache(usual, place, tmp_path, request, inputs):
    """Both have the result of one alone, and no package is fetched twice."""
    session, cache, _ = usual
    for number in range(request.config.option.pairs):
        forget_kernels(cache)
        place.requests.clear()
        pair = []
        for name in ("one", "two"):
            directory = tmp_path / f"{number}-{name}"
            directory.mkdir()
            pair.append(Session(directory, CASE, *OPTIONS, **{**settings(directory), "KDRIFT_CACHE": str(cache)}))
        with pair[0] as one, pair[1] as two:
            one.end(SOON), two.end(SOON)
        assert result(one) == result(two) == result(session), one.output + two.output
        packages = [path for path in place.requests if path.endswith((".deb", "Packages"))]
        assert sorted(packages) == sorted(set(packages))
        assert len(packages) == 1 + len(KERNELS)
        assert half_written(cache) == []
    inputs["pairs of sessions over one cache"] = request.config.option.pairs


def test_read_only_checkout_and_home(usual, tmp_path):
    """Nothing is written but the cache, TMPDIR and the report."""
    session, cache, _ = usual
    (tmp_path / "home").mkdir()
    given = {**settings(tmp_path), "KDRIFT_CACHE": str(cache), "PROJECT": str(ROOT), "HOME": str(tmp_path / "home")}
    assert result(run(tmp_path, CASE, *OPTIONS, prefix=READ_ONLY, **given)) == result(session)


def test_home_that_cannot_be_written_is_one_line(place, tmp_path):
    given = {**settings(tmp_path), "KDRIFT_CACHE": "", "XDG_CACHE_HOME": "", "PROJECT": str(ROOT), "HOME": str(tmp_path)}
    session = run(tmp_path, CASE, *OPTIONS, prefix=READ_ONLY, **given)
    assert session.status == USAGE
    assert one_line(session.output, "cannot write to the cache in ", "Read-only file system", "set KDRIFT_CACHE") == session.output.strip()


def test_clock_that_is_set_back(usual, tmp_path):
    """By an hour, a second after the beginning."""
    session, cache, _ = usual
    late = run(tmp_path, CASE, *OPTIONS, program=CLOCK_SET_BACK, **{**settings(tmp_path), "KDRIFT_CACHE": str(cache)})
    assert result(late) == result(session)
    assert late.results["run"]["duration_s"] >= 0


@pytest.mark.parametrize("size", ["16k", "400k"])
def test_full_cache_says_so(place, tmp_path, size):
    """The first has no room for apt's settings, the second none for the tests' bytecode; pytest says an Exit twice."""
    disk = tmp_path / "disk"
    given = {**settings(tmp_path), "KDRIFT_CACHE": str(disk), "DISK": str(disk), "SIZE": size}
    session = run(tmp_path, CASE, *OPTIONS, prefix=SMALL_DISK, **given)
    assert session.status == LOST
    assert session.output.count(f"no space left for the cache in {disk}: free some space") == 2


@pytest.mark.parametrize("size", ["8k", "40k"])
def test_full_report_is_one_line_and_no_regression(usual, tmp_path, size):
    session, cache, _ = usual
    given = {**settings(tmp_path), "KDRIFT_CACHE": str(cache), "DISK": str(tmp_path / "report"), "SIZE": size}
    full = run(tmp_path, CASE, *OPTIONS, prefix=SMALL_DISK, **given)
    assert full.status == session.status == NOT_BOOTED
    one_line(full.output, f"--report {tmp_path}/report: No space left on device")
