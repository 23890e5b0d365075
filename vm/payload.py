"""The project's own sources for the guests, with their bytecode.

They are sent when a session starts and are not in the saved state, so that an edited test runs at once.  Compiling them and
rewriting their assertions takes two seconds under emulation, so pytest itself does it here, once per edit.
"""
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from common.project import PROJECT
from kernels.cache import Cache
from vm.own import own_files

SOURCES = ["conftest.py", "pytest.ini", "tests", "fixtures", "netns"]
SKIPPED = {"__pycache__", ".pytest_cache"}


def pack_sources(cache: Cache, own: Sequence[Path] = ()) -> bytes:
    """A tar archive of the sources with their bytecode, and of the user's own tests (vm.own); paths below /, times as on the host.

    Raises TooMuch.
    """
    files = _files()
    bytecode = cache.build("images", f"bytecode-{_key(files)}", _compile, {"group": f"bytecode {PROJECT}"})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
        for file in [*(PROJECT / file for file in files), *own_files(own)]:
            tar.add(file, recursive=False)
        for compiled in sorted(bytecode.rglob("*.pyc")):
            # PYTHONPYCACHEPREFIX puts bytecode into a separate tree; the guest looks for it beside the source.
            source = compiled.relative_to(bytecode)
            tar.add(compiled, str(source.parent / "__pycache__" / source.name), recursive=False)
    return archive.getvalue()


def _files() -> list[Path]:
    found = []
    for name in SOURCES:
        top = PROJECT / name
        for directory, names, files in os.walk(top):
            names[:] = sorted(set(names) - SKIPPED)
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
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(target)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    places = [str(path) for path in sorted((PROJECT / "tests").iterdir()) if path.is_dir() and path.name not in ("harness", *SKIPPED)]
    words = [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", "--collect-only", "-o", "pythonpath=.", *places]
    subprocess.run(words, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for compiled in target.rglob("*.pyc"):
        if not Path("/", compiled.relative_to(target)).is_relative_to(PROJECT) or ".venv" in compiled.parts:
            compiled.unlink()
