"""The project's own sources for the guests, with their bytecode.

They are sent when a session starts, so that an edited test runs at once.  Compiling them and rewriting their assertions takes two
seconds under emulation, so pytest itself does it here, once per edit; it leaves a list of what it has collected too.
"""
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.project import PROJECT
from kernels.cache import Cache
from vm.own import own_files

LIBRARIES = ["conftest.py", "pytest.ini", "fixtures", "netns"]      # what every test imports
TESTS = "tests"
SKIPPED = {"__pycache__", ".pytest_cache"}
INVENTORY = "inventory.json"                # in the entry of the bytecode, see vm.inventory


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
    directories = {str(Path(file).parent) for file in files if not Path(file).is_absolute()}
    above = {str(path / "conftest.py") for directory in directories for path in Path(directory).parents if path != Path()}
    return _pack(cache, _files(sorted({*directories, *above})), own)


def libraries_key() -> str:
    """A key that changes when a library changes (by path, size and modification time)."""
    return _key(_files(LIBRARIES))


def inventory(cache: Cache) -> dict[str, list[list[str]]]:
    """For each file with tests, below the project, what -k may match in each of its tests.  A file that cannot be read is missing."""
    try:
        found: dict[str, list[list[str]]] = json.loads((_bytecode(cache) / INVENTORY).read_bytes())
    except FileNotFoundError:               # pytest could not even begin
        return {}
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
    return cache.build("images", f"compiled-{_key(_files([*LIBRARIES, TESTS]))}", _compile, {"group": f"bytecode {PROJECT}"})


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
    """A hash of the sources' sizes and modification times, which bytecode belongs to."""
    digest = hashlib.sha256(f"{sys.version} {PROJECT}".encode())
    for file in files:
        status = os.stat(PROJECT / file)
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _compile(target: Path) -> None:
    """Let pytest collect everything and keep its bytecode.  A source that does not compile is left for the guest to report."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(target), "KDRIFT_INVENTORY": str(target / INVENTORY)}
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS", "PYTEST_PLUGINS"):     # the inventory has all tests
        environment.pop(name, None)
    places = [str(path) for path in sorted((PROJECT / TESTS).iterdir()) if path.is_dir() and path.name not in ("harness", *SKIPPED)]
    words = [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", "-p", "vm.inventory", "--collect-only", "-o", "pythonpath=."]
    subprocess.run([*words, *places], cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    for compiled in target.rglob("*.pyc"):
        if not Path("/", compiled.relative_to(target)).is_relative_to(PROJECT) or ".venv" in compiled.parts:
            compiled.unlink()
