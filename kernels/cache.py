"""A cache of directories that stays intact under concurrent and killed processes.

A builder fills an entry, a directory, in a temporary place; it is renamed into the cache with a manifest of its files,
so it is there completely or not at all. Locks are flock(2) locks: the kernel releases them when their holder dies.

    with Cache() as cache:
        path = cache.build("images", key, write_image, {"release": "6.1.0-53-cloud-amd64"})

An entry that `build` returned stays in use until the cache is closed; `prune` skips entries in use.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import NO_SPACE, CacheError, NoSpaceError, UnwritableError
from common.temporary import is_full_at
from kernels.flock import flocked

AREAS = ("kernels", "images", "states")
MANIFEST = ".manifest.json"
KEPT_OF_A_GROUP = 2
Meta = dict[str, Any]                       # JSON; what is in it is up to who builds the entry
Builder = Callable[[Path], Meta | None]


def default_root() -> Path:
    """$KDRIFT_CACHE, else kdrift in $XDG_CACHE_HOME, else ~/.cache/kdrift."""
    if chosen := os.environ.get("KDRIFT_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdrift"


@dataclass(frozen=True)
class Entry:
    """One directory of an area; `used` is when `build` last returned it, in seconds since the epoch."""

    area: str
    key: str
    path: Path
    used: float
    meta: Meta

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return tree_size(self.path)


class Cache:
    """The cache below `root`; `say` gets the lines for the user (default: standard error).

    Raises CacheError if the directory cannot be created or written.
    """

    def __init__(self, root: Path | None = None, say: Callable[[str], None] | None = None):
        self.root = Path(root) if root else default_root()
        self.say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._held: dict[Path, contextlib.ExitStack] = {}
        with readable_errors(self.root):
            for name in (*AREAS, "apt", "locks", "tmp"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release every entry that this object returned."""
        for held in self._held.values():
            held.close()
        self._held.clear()

    def area(self, name: str) -> Path:
        """The directory of an area: "kernels", "images", "states" or "apt"."""
        return self.root / name

    @contextlib.contextmanager
    def lock(self, name: str, *, shared: bool = False, wait: bool = True, note: str | None = None) -> Iterator[None]:
        """Hold the named lock. Raises BlockingIOError if it is taken and `wait` is false.

        `note` is printed once if another process holds the lock.
        """
        path = self.root / "locks" / f"{name}.lock"
        with flocked(path, shared, wait, lambda: note and self.say(note)):
            yield

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary directory on the cache's file system; if this process is killed, a later one removes it."""
        with readable_errors(self.root):
            path = self.root / "tmp" / uuid.uuid4().hex[:16]      # short: it may become part of a socket's path
            with flocked(path.with_suffix(".lock")):
                path.mkdir()
                try:
                    yield path
                finally:
                    _remove(path)
                    path.with_suffix(".lock").unlink(missing_ok=True)

    def build(self, area: str, key: str, builder: Builder, meta: Meta | None = None) -> Path:
        """The entry's directory; `builder(empty directory)` fills it if it is missing or damaged.

        What the builder returns is added to `meta`. Of the entries of an area with the same `group` in their meta, the
        newest few are kept. One process builds while the others wait. Raises CacheError if the disk is full or not
        writable; the builder's exceptions pass through, and nothing is left.
        """
        path = self.root / area / key
        if path in self._held and self.damage(path) is None:
            return path
        waiting = f"waiting for another process that is building {area}/{key}"
        built = False
        with self.lock(f"{area}-{key}", note=waiting):
            if path.exists() and (damage := self.damage(path)):
                self.say(f"cache entry {area}/{key} is damaged ({damage}): rebuilding it")
                self.discard(path)
            if not path.exists():
                with self.scratch() as scratch:
                    entry = scratch / "entry"
                    entry.mkdir()
                    added = builder(entry) or {}
                    _write_manifest(entry, {**(meta or {}), **added})
                    entry.rename(path)
                built = True
            self._hold(path)
        if built and meta and "group" in meta:
            self._retire(area, meta["group"])
        with contextlib.suppress(OSError):
            os.utime(path / MANIFEST)
        return path

    def entry(self, area: str, key: str) -> Path | None:
        """The entry's directory, in use from now on; None if it is missing or damaged."""
        path = self.root / area / key
        self._hold(path)
        if self.damage(path) is None:
            return path
        self._held.pop(path).close()
        return None

    def valid(self, path: Path, *, deep: bool = False) -> bool:
        """Whether every file of the entry is as built; see `damage`."""
        return self.damage(path, deep=deep) is None

    def damage(self, path: Path, *, deep: bool = False) -> str | None:
        """What is wrong with an entry; None if it is intact.

        Compares sizes and times; hashes a file only if its time differs, or always if `deep`.
        """
        try:
            files = [(Path(name), int(size), int(mtime_ns), str(sha256))
                     for name, (size, mtime_ns, sha256) in _manifest(path)["files"].items()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return "no manifest"
        if any(name.is_absolute() or ".." in name.parts for name, *_ in files):
            return "the manifest names files outside"
        for name, size, mtime_ns, sha256 in files:
            try:
                now = os.lstat(path / name)
            except OSError:
                return f"{name} is missing"
            if now.st_size != size:
                return f"{name} has {now.st_size} bytes instead of {size}"
            if (deep or now.st_mtime_ns != mtime_ns) and sha256_of(path / name) != sha256:
                return f"SHA-256 mismatch in {name}"
        return None

    def meta(self, path: Path) -> Meta:
        """The metadata recorded when the entry was built. Raises CacheError if it cannot be read."""
        try:
            meta: Meta = _manifest(path)["meta"]
            return meta
        except (OSError, ValueError, KeyError) as error:
            raise CacheError(f"cache entry {path.parent.name}/{path.name} has no readable manifest") from error

    def discard(self, path: Path) -> None:
        """Remove an entry at once; processes that have its files open keep them."""
        with self.scratch() as scratch, contextlib.suppress(FileNotFoundError):
            path.rename(scratch / "discarded")

    def entries(self, *areas: str) -> list[Entry]:
        """The entries of these areas (default: all); one without a readable manifest has an empty meta."""
        found = []
        for area in areas or AREAS:
            for path in sorted((self.root / area).iterdir()):
                try:
                    manifest = _manifest(path)
                    used = (path / MANIFEST).stat().st_mtime
                except (OSError, ValueError):
                    manifest, used = {}, 0.0
                found.append(Entry(area, path.name, path, used, manifest.get("meta", {})))
        return found

    def usage(self) -> dict[str, int]:
        """Bytes on disk by area; "apt" holds the package index and downloads."""
        return {name: tree_size(self.root / name) for name in (*AREAS, "apt", "tmp")}

    def prune(self) -> tuple[int, list[str]]:
        """Remove everything that no process uses; returns the bytes freed and the names of what is in use.  Raises CacheError."""
        with readable_errors(self.root):
            return self._prune()

    def _prune(self) -> tuple[int, list[str]]:
        freed, busy = 0, []
        for entry in self.entries():
            try:
                freed += self._remove_unused(entry)
            except BlockingIOError:
                busy.append(f"{entry.area}/{entry.key}")
        try:
            with self.lock("apt", wait=False):
                freed += tree_size(self.root / "apt")
                for path in (self.root / "apt").iterdir():
                    _remove(path)
        except BlockingIOError:
            busy.append("apt")
        return freed, busy

    def _remove_unused(self, entry: Entry) -> int:
        """Remove an entry and return its bytes. Raises BlockingIOError if a process uses it."""
        name = f"{entry.area}-{entry.key}"
        with self.lock(name, wait=False), self.lock(f"{name}-use", wait=False):
            size = entry.size
            self.discard(entry.path)
            for lock in (name, f"{name}-use"):
                (self.root / "locks" / f"{lock}.lock").unlink(missing_ok=True)
            return size

    def _retire(self, area: str, group: str) -> None:
        """Remove a group's entries that newer ones have replaced: a saved state takes 400 MB, and each edit of its inputs makes another."""
        entries = [entry for entry in self.entries(area) if entry.meta.get("group") == group]
        for entry in sorted(entries, key=lambda entry: entry.used)[:-KEPT_OF_A_GROUP]:
            with contextlib.suppress(BlockingIOError):
                self._remove_unused(entry)

    def _hold(self, path: Path) -> None:
        if path not in self._held:
            held = contextlib.ExitStack()
            held.enter_context(self.lock(f"{path.parent.name}-{path.name}-use", shared=True))
            self._held[path] = held

    def _remove_leftovers(self) -> None:
        for lock in (self.root / "tmp").glob("*.lock"):
            with contextlib.suppress(BlockingIOError, FileNotFoundError), flocked(lock, wait=False):
                _remove(lock.with_suffix(""))
                lock.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's contents, or of a symbolic link's target, in hexadecimal."""
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_size(path: Path) -> int:
    """Bytes that the files below `path` occupy on disk; files that vanish meanwhile count as 0."""
    total = 0
    for directory, _subdirectories, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return total


def _manifest(entry: Path) -> dict[str, Any]:
    """Raises OSError, ValueError."""
    try:
        found = json.loads((entry / MANIFEST).read_bytes())
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(found, dict) or not isinstance(found.get("meta", {}), dict):
        raise ValueError("no manifest")
    return found


def _write_manifest(entry: Path, meta: Meta) -> None:
    files = {}
    for directory, subdirectories, names in os.walk(entry):
        links = [name for name in subdirectories if os.path.islink(os.path.join(directory, name))]
        for name in (*names, *links):
            path = Path(directory, name)
            state = path.lstat()
            files[str(path.relative_to(entry))] = (state.st_size, state.st_mtime_ns, sha256_of(path))
    (entry / MANIFEST).write_text(json.dumps({"built": time.time(), "meta": meta, "files": files}))


@contextlib.contextmanager
def readable_errors(root: Path) -> Iterator[None]:
    """Make a CacheError of an OSError of a cache's files, and of the directories on the way to it."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE and (error.filename or not is_full_at(Path(tempfile.gettempdir()))):
            raise NoSpaceError(f"no space left for the cache in {root}: free some space, for example with "
                               "`./kdrift kernels --prune`, or set KDRIFT_CACHE to another directory") from error
        where = Path(os.fsdecode(error.filename or root))
        ours = where.is_relative_to(root) or where in root.parents
        if ours and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise UnwritableError(f"cannot write to the cache in {root} ({error.strerror}): "
                                  "set KDRIFT_CACHE to another directory") from error
        if error.filename and ours and not isinstance(error, BlockingIOError):
            raise CacheError(f"cannot use the cache in {root}: {os.fsdecode(error.filename)}: {error.strerror}") from error
        raise


def _remove(path: Path) -> None:
    """Remove a file or tree, even if directories are not writable (packages may contain such)."""
    if path.is_dir() and not path.is_symlink():
        for directory, _subdirectories, _files in os.walk(path):
            os.chmod(directory, 0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
