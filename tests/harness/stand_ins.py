"""What sessions that are disturbed run on: stand-ins for the mirror, its packages and QEMU, or with --machines real ones.

The stand-in for QEMU takes a moment and ends, so that no kernel boots: all else in a session is as usual.
"""
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.debian_archive import DebianArchive, configure, new_archive
from tests.harness.sessions import KERNEL, OTHER, Session, copied_cache, run

CASE, TESTS = "test_outcomes.py", ("-k", "test_passes")
RELEASES = {KERNEL: "6.12.0-9-cloud-amd64", OTHER: "6.1.0-9-cloud-amd64"}
QEMU = """#!/bin/sh
case "$*" in --version) echo QEMU emulator version 7.2.22; exit;; esac
exec sleep 0.5
"""
HALF = ("tmp/*", "apt/*.[0-9]*", "apt/sources/*.[0-9]*")      # of a cache: what is not whole yet
SOON = 20                                   # seconds in which all must be gone
COLD, COOL = 0.05, 0.15                     # shares of the sessions that boot, and that import libraries anew
BOOTING, IMPORTING = 4, 1.5                 # how much longer than the others these take


class ServedMirror:
    """An archive with both kernels, and the environment of a session whose apt and QEMU are stand-ins."""

    def __init__(self, archive: DebianArchive, environment: dict[str, str]) -> None:
        self.archive, self.environment = archive, environment


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedMirror]:
    root = tmp_path_factory.mktemp("archive")
    (root / "archive").mkdir(), (root / "bin").mkdir()
    program = root / "bin/qemu-system-x86_64"
    program.write_text(QEMU)
    program.chmod(0o755)
    with new_archive(root / "archive") as archive:
        for series, release in RELEASES.items():
            archive.add_kernel(release, f"{series}.99-1")
        archive.publish()
        with archive.serve() as address:
            with pytest.MonkeyPatch.context() as patch:
                configure(root, patch, f"deb [signed-by={archive.keyring}] {address} bookworm main\n")
                settings = os.environ["APT_CONFIG"]
            yield ServedMirror(archive, {"APT_CONFIG": settings, "KDRIFT_MIRROR": "", "PATH": f"{program.parent}:{os.environ['PATH']}"})


class Scene:
    """Two kernels that a session compares in the test that passes, and a cache which has all that it needs.

    `usual` is such a session that nobody disturbs.
    """

    def __init__(self, directory: Path, cache: Path, *options: str, **environment: str) -> None:
        self.cache, self.options, self.environment = cache, (*TESTS, *options), environment
        self.usual, self.longest_s = self.timed(directory)

    def timed(self, directory: Path) -> tuple[Session, float]:
        """A session, and how long it took (s)."""
        directory.mkdir()
        began = time.monotonic()
        session = run(directory, CASE, *self.options, **self.settings(directory))
        return session, time.monotonic() - began

    def settings(self, directory: Path) -> dict:
        """For Session; all that is written is below the directory, or in the cache."""
        return {"kernels": list(RELEASES), "command": "validate", **self.environment, "KDRIFT_CACHE": str(self.cache)}

    def result(self, session: Session) -> tuple[int, list]:
        """What is the same each time."""
        kernels = session.results["kernels"]
        return session.status, [(each["label"], each["release"], each["error"], {test["id"]: test["outcome"] for test in each["tests"]})
                                for each in kernels]

    def half_written(self) -> list[str]:
        """What a killed process may have left in the cache: nobody looks at it again."""
        return sorted(str(path.relative_to(self.cache)) for pattern in HALF for path in self.cache.glob(pattern))

    def forget(self, chance: random.Random) -> float:
        """Remove something that the next session makes anew, or nothing; how long that session takes at most (s)."""
        raise NotImplementedError

    def forget_all(self) -> int:
        """Remove all such things; how many there were."""
        raise NotImplementedError

    def made(self) -> list[str]:
        """Those that were made since then, each as often as it was made."""
        raise NotImplementedError


class StandIns(Scene):
    """No kernel boots: what is made anew is what comes from the mirror."""

    def __init__(self, directory: Path, mirror: ServedMirror) -> None:
        self.mirror = mirror
        super().__init__(directory / "first", directory / "cache", "--slots=2", **mirror.environment)
        self.forget_kernels()
        self.usual, self.longest_s = self.timed(directory / "usual")

    def forget_kernels(self) -> None:
        """The boot images, which take longest, stay."""
        for area in ("kernels", "apt"):
            shutil.rmtree(self.cache / area)

    def forget(self, chance: random.Random) -> float:
        if chance.random() < 0.5:
            self.forget_kernels()
        return self.longest_s

    def forget_all(self) -> int:
        self.forget_kernels()
        self.mirror.archive.requests.clear()
        return 1 + len(RELEASES)

    def made(self) -> list[str]:
        return [path for path in self.mirror.archive.requests if path.endswith((".deb", "Packages"))]


class RealMachines(Scene):
    """Kernels of the usual cache, of which `cache` is a copy; what is made anew are saved states."""

    def __init__(self, directory: Path, cache: Path) -> None:
        super().__init__(directory / "usual", cache, "--slots=1", "--offline")

    def forget_states(self, pattern: str) -> None:
        for path in (self.cache / "states").glob(pattern):
            shutil.rmtree(path)

    def forget(self, chance: random.Random) -> float:
        which = chance.random()
        if which < COLD:
            self.forget_states("*")
            return BOOTING * self.longest_s
        if which < COLD + COOL:
            self.forget_states("*-*")
            return IMPORTING * self.longest_s
        return self.longest_s

    def forget_all(self) -> int:
        self.forget_states("*")
        return 2 * len(RELEASES)

    def made(self) -> list[str]:
        return os.listdir(self.cache / "states")


@pytest.fixture(scope="session")
def stand_ins(mirror: ServedMirror, tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("usual"), mirror)


@pytest.fixture(scope="session")
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Stand-ins, or with --machines real ones."""
    if not request.config.option.machines:
        yield request.getfixturevalue("stand_ins")
        return
    directory, began = tmp_path_factory.mktemp("usual"), time.time()
    first = run(directory, CASE, *TESTS, "--slots=1", kernels=list(RELEASES), command="validate")
    with copied_cache(directory / "cache", began, first.releases.values()) as cache:
        yield RealMachines(directory, cache)
