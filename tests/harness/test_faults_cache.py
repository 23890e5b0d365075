"""The cache: what is damaged in it is made anew, what is missing is made once, and what is not wanted is not made."""

import os
import shutil
import time

import pytest

from kernels.cache import MANIFEST
from tests.harness.sessions import KERNEL, OTHER, Session, copied_cache, eventually, one_line, run
from vm.image import userland_key

CASE, OPTIONS = "test_outcomes.py", ("-k", "test_passes")
PASSED = {"test_passes": "passed"}
BUILDING, WAITING = "booting (once, to save its state)", "waiting for another process that is building states/"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with what both kernels need, and nothing else."""
    began = time.time()
    usual = run(tmp_path_factory.mktemp("usual"), CASE, *OPTIONS, kernels=[KERNEL, OTHER])
    with copied_cache(tmp_path_factory.mktemp("copy") / "cache", began, usual.releases.values()) as path:
        yield path


def state_of(cache, series, pattern="*-*"):
    """The saved state of a kernel, from which machines are restored; that it is the kernel's is known from its key."""
    (image,) = cache.glob(f"kernels/*/boot/vmlinuz-{series}.*")
    (state,) = [path for path in cache.glob(f"states/{pattern}") if image.parents[1].name in (path / MANIFEST).read_text()]
    return state


def first_state_of(cache, series):
    """The one that it was made from, with the kernel just booted."""
    return state_of(cache, series, "[!-]" * 16)


def remove_states(cache):
    shutil.rmtree(cache / "states")


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path):
    """Other contents that neither size nor time show, as after a disk's own error."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, cache):
    """Two kernels whose states, and the boot image of one, are damaged."""
    truncate(state_of(cache, KERNEL) / "ram")
    overwrite(state_of(cache, OTHER) / "devices")
    truncate(next(cache.glob(f"images/*-{userland_key()}/initrd")))
    return run(tmp_path_factory.mktemp("damaged"), CASE, *OPTIONS, kernels=[KERNEL, OTHER], KDRIFT_CACHE=str(cache))


def test_damaged_cache_costs_time_and_nothing_else(damaged):
    assert damaged.status == 0
    assert damaged.outcomes(KERNEL) == damaged.outcomes(OTHER) == PASSED


def test_damage_is_named_once(damaged):
    one_line(damaged.output, f"{KERNEL}: cache entry states/", "is damaged (ram has ", "): rebuilding it")
    one_line(damaged.output, f"{OTHER}: saved state of 6.1.", "is damaged (restoring the saved state failed: ", "): rebuilding it")
    one_line(damaged.output, ": cache entry images/", "is damaged (initrd has ", "): rebuilding it")


def test_truncated_devices_are_noticed(tmp_path, cache):
    truncate(state_of(cache, KERNEL) / "devices")
    session = run(tmp_path, CASE, *OPTIONS, KDRIFT_CACHE=str(cache))

    assert session.status == 0
    one_line(session.output, "cache entry states/", "is damaged (devices has ", "): rebuilding it")


def test_fresh_boot_leaves_no_state(tmp_path, cache):
    remove_states(cache)
    session = run(tmp_path, CASE, *OPTIONS, "--fresh", KDRIFT_CACHE=str(cache))

    assert (session.status, session.outcomes()) == (0, PASSED)
    assert list((cache / "states").iterdir()) == []


def test_two_sessions_make_one(tmp_path, cache):
    """The second waits for the first, and uses what it made."""
    remove_states(cache)
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir(), two.mkdir()
    with Session(one, CASE, *OPTIONS, KDRIFT_CACHE=str(cache)) as first, Session(two, CASE, *OPTIONS, KDRIFT_CACHE=str(cache)) as second:
        first.end()
        second.end()

    assert first.outcomes() == second.outcomes() == PASSED
    assert first.status == second.status == 0
    assert sorted((BUILDING in session.output, WAITING in session.output) for session in (first, second)) == [(False, True), (True, False)]
    assert len(list((cache / "states").iterdir())) == 2


def test_damaged_first_state_is_rebuilt(tmp_path, cache):
    """It is read only where the second state is missing, as after an edit of a library."""
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir(), second.mkdir()
    remove_states(cache)
    run(first, CASE, *OPTIONS, KDRIFT_CACHE=str(cache))
    overwrite(first_state_of(cache, KERNEL) / "devices")
    shutil.rmtree(state_of(cache, KERNEL))
    session = run(second, CASE, *OPTIONS, KDRIFT_CACHE=str(cache))

    assert (session.status, session.outcomes()) == (0, PASSED)
    one_line(session.output, f"{KERNEL}: saved state of ", "is damaged (restoring the saved state failed: ", "): rebuilding it")


def test_more_kernels_than_slots(tmp_path):
    """A kernel named twice is tested twice, under two names; no two machines run at a time."""
    with Session(tmp_path, "test_busy.py", "--slots=1", kernels=[KERNEL, OTHER, KERNEL]) as session:
        most = 0

        def over():
            nonlocal most
            most = max(most, len(session.pids("name=kdrift.gateway")))
            return session.process.poll() is not None

        eventually(over, 120, lambda: session.output)
        session.end()

    assert session.status == 0
    assert [kernel["label"] for kernel in session.results["kernels"]] == [KERNEL, OTHER, f"{KERNEL} (2)"]
    assert session.outcomes(KERNEL) == session.outcomes(OTHER) == session.outcomes(f"{KERNEL} (2)")
    assert set(session.outcomes().values()) == {"passed"}
    assert most == 1
