"""The project's own sources for the guests, with their bytecode.

They are sent when a session starts, so that an edited test runs at once.  Compiling them and rewriting their assertions takes two
seconds under emulation, so pytest itself does it here, once per edit; it leaves a list of what it has collected too.  After an edit of
tests alone it reads these again, and no others.
"""
import errno
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pytest

from common.errors import CacheError
from common.project import PROJECT
from kernels.cache import Cache, Meta
from vm.inventory import BYTECODE, LIST
from vm.own import own_directories, own_files

LIBRARIES = ["conftest.py", "pytest.ini", "fixtures", "netns"]      # what every test imports
TESTS = "tests"
HARNESS = f"{TESTS}/harness/"
SKIPPED = {"__pycache__", ".pytest_cache"}
WORD = re.compile(r"\btest_\w+")
INVENTORY = "inventory.json"                # in the entry of the bytecode, see vm.inventory
SOURCES = "sources.json"                    # likewise: the state of each source
# Pytest's statuses where it has read all that it can. Files that cannot be collected interrupt it, and with a conftest.py that cannot be
# read it ends with a usage error: a guest reports both.
ENDED = (pytest.ExitCode.OK, pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED)
State = dict[str, list[int]]                # of sources: size in bytes and modification time in ns, which bytecode belongs to
Listed = dict[str, list[list[str]]]


def pack_sources(cache: Cache, own: Sequence[Path] = ()) -> bytes:
    """A tar archive of all sources with their bytecode, and of the user's own tests (vm.own); paths below /, times as on the host.

    Raises TooMuch.
    """
    return _pack(cache, _files([*LIBRARIES, TESTS]), own)


def pack_libraries(cache: Cache) -> bytes:
    """The part that all tests need."""
    return _pack(cache, _files(LIBRARIES))


def pack_tests(cache: Cache, files: Iterable[str], own: Sequence[Path] = ()) -> bytes:
    """The part that these files with tests need besides: their directories, and each conftest.py above those.  Raises TooMuch."""
    return _pack(cache, _files(_beside(files)), own)


def _beside(files: Iterable[str]) -> list[str]:
    directories = {str(Path(file).parent) for file in files if not Path(file).is_absolute()}
    above = {str(path / "conftest.py") for directory in directories for path in Path(directory).parents if path != Path()}
    return sorted({*directories, *above})


def content_key(files: Sequence[str]) -> str:
    """A key that changes when the content of a source changes that these files with tests may use: a library, what pack_tests() has of
    the project, and the user's own tests.  Raises TooMuch."""
    digest = hashlib.sha256()
    for file in [*(PROJECT / file for file in _files([*LIBRARIES, *_beside(files)])), *own_files(own_directories(files))]:
        content = file.read_bytes()
        digest.update(f"{file} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def libraries_key() -> str:
    """A key that changes when a library changes (by path, size and modification time)."""
    return _key(_files(LIBRARIES))


def inventory(cache: Cache) -> Listed:
    """For each file with tests, below the project, what -k may match in each of its tests.  A file that cannot be read is missing."""
    return _listed(_bytecode(cache)) or {}


def _listed(bytecode: Path) -> Listed | None:
    """The inventory in an entry; None if pytest could not even begin."""
    try:
        found: Listed = json.loads((bytecode / INVENTORY).read_bytes())
    except FileNotFoundError:
        return None
    return found


def _pack(cache: Cache, files: list[Path], own: Sequence[Path] = ()) -> bytes:
    bytecode = _bytecode(cache)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
        for file in [*(PROJECT / file for file in files), *own_files(own)]:
            tar.add(file, recursive=False)
            # PYTHONPYCACHEPREFIX puts bytecode into a separate tree; the guest looks for it beside the source.
            for compiled in sorted((bytecode / file.parent.relative_to("/")).glob(f"{file.stem}.*.pyc")):
                tar.add(compiled, str(file.parent / "__pycache__" / compiled.name), recursive=False)
    return archive.getvalue()


def _bytecode(cache: Cache) -> Path:
    state, meta = _state(_files([*LIBRARIES, TESTS])), {"group": f"bytecode {PROJECT}", "compiler": _compiler()}
    return cache.build("images", f"compiled-{_hash(state)}", lambda target: _compile(target, state, _earlier(cache, meta)), meta)


def _earlier(cache: Cache, meta: Meta) -> Path | None:
    """The newest entry of this project's bytecode, if any."""
    entries = [entry for entry in cache.entries("images") if meta.items() <= entry.meta.items()]
    return cache.entry("images", max(entries, key=lambda entry: entry.used).key) if entries else None


def _files(names: Iterable[str]) -> list[Path]:
    found = []
    for name in names:
        top = PROJECT / name
        for directory, subdirectories, files in os.walk(top):
            subdirectories[:] = sorted(set(subdirectories) - SKIPPED)
            found += [Path(directory, file).relative_to(PROJECT) for file in sorted(files)]
        if top.is_file():
            found.append(Path(name))
    return found


def _key(files: list[Path]) -> str:
    return _hash(_state(files))


def _state(files: list[Path]) -> State:
    statuses = {str(file): os.stat(PROJECT / file) for file in files}
    return {file: [status.st_size, status.st_mtime_ns] for file, status in statuses.items()}


def _hash(state: State) -> str:
    return hashlib.sha256(f"{_compiler()} {PROJECT} {json.dumps(state)}".encode()).hexdigest()[:16]


def _compiler() -> str:
    return f"{sys.version} {pytest.__version__}"


def _compile(target: Path, state: State, earlier: Path | None) -> None:
    """Keep the bytecode of `state`'s sources and the inventory; what has not changed comes from an earlier entry.

    A source that does not compile is left for the guest to report.
    """
    was: State = json.loads((earlier / SOURCES).read_bytes()) if earlier else {}
    changed = {file for file in {*state, *was} if state.get(file) != was.get(file)}
    if earlier:
        _copy_bytecode(earlier, target, state.keys() - changed)
    listed = _listed(earlier) if earlier else None
    found: Listed | None
    if listed is not None and _are_tests_alone(changed, state):
        again = sorted(file for file in changed & state.keys() if not file.startswith(HARNESS))
        kept = {file: tests for file, tests in listed.items() if file not in changed}
        found = {**kept, **(_collect(target, again) or {})} if again else kept
    else:
        places = sorted((PROJECT / TESTS).iterdir())
        found = _collect(target, [str(path) for path in places if path.is_dir() and path.name not in ("harness", *SKIPPED)])
    if found is not None:
        (target / INVENTORY).write_text(json.dumps(found))
    (target / SOURCES).write_text(json.dumps(state))


def _copy_bytecode(earlier: Path, target: Path, files: Iterable[str]) -> None:
    for file in map(PROJECT.joinpath, files):
        place = file.parent.relative_to("/")
        for compiled in (earlier / place).glob(f"{file.stem}.*.pyc"):
            (target / place).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(compiled, target / place / compiled.name)


def _are_tests_alone(changed: Collection[str], state: State) -> bool:
    """Whether these files are tests, and no other file may import one of them."""
    if not all(file.startswith(HARNESS) or file.startswith(f"{TESTS}/") and Path(file).match("test_*.py") for file in changed):
        return False
    stems = {Path(file).stem for file in changed}
    others = [PROJECT / file for file in state if file.endswith(".py") and not file.startswith(HARNESS) and file not in changed]
    return stems.isdisjoint(word for file in others for word in WORD.findall(file.read_text(errors="replace")))


def _collect(target: Path, places: list[str]) -> Listed | None:
    """Let pytest collect there and keep its bytecode.  Returns the inventory; None if it could not even begin.

    Raises CacheError if pytest did not come to its end: what it has left is incomplete.
    """
    environment = {**os.environ, BYTECODE: str(target), LIST: str(target / INVENTORY)}
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTEST_ADDOPTS", "PYTEST_PLUGINS"):      # the inventory has all tests
        environment.pop(name, None)
    words = [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", "-p", "vm.inventory", "--collect-only", "-o", "pythonpath=."]
    done = subprocess.run([*words, *places], cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode not in ENDED and os.strerror(errno.ENOSPC) in done.stdout:
        raise OSError(errno.ENOSPC, "pytest", str(target))      # the cache adds advice to it
    if done.returncode not in ENDED:
        how = f"killed by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else f"status {done.returncode}"
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise CacheError(f"pytest, which compiles the tests for the machines, failed ({how}): {last}")
    for compiled in target.rglob("*.pyc"):
        if not Path("/", compiled.relative_to(target)).is_relative_to(PROJECT) or ".venv" in compiled.parts:
            compiled.unlink()
    return _listed(target)
