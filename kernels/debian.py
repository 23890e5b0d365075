"""Kernels of the Debian archive: which one a specification means, and how it gets into the cache.

Cached kernels need no network. The package index is fetched again after a day, or if a specification is not in it; if
that fails, the old index and the cached kernels serve, and a line says so. The lists of the large suites are fetched when
a specification needs them (kernels.packages.Index.needs).
"""

import hashlib
import math
import platform
import shutil
import subprocess
import time
from pathlib import Path

from common.errors import AbsentError, FetchError, SpecError
from kernels.apt import Apt, is_absence
from kernels.cache import Cache, Meta, readable_errors
from kernels.extract import Kernel, image_release
from kernels.grammar import Spec
from kernels.lists import read_index, read_packages
from kernels.packages import Candidate, Index, Package, debian_version_key, in_series
from kernels.progress import Reporter
from kernels.signatures import Unverified, check_modules
from kernels.sources import LARGE, archives
from kernels.unpack import MODULES, WANTED, find_image, settle, unpack

FRESH_FOR = 24 * 3600.0  # seconds until an index is fetched again
RETRY_AFTER = 3600.0  # seconds after a failed refresh during which an existing index is not refreshed again
RECENT = 600.0  # seconds during which an index is not fetched again even if a specification is not in it


class Archive:
    """The Debian archive as this machine knows it: the package index and the kernels in `cache`."""

    def __init__(self, cache: Cache, *, offline: bool = False, progress: Reporter | None = None,
                 mirror: str | None = None, allow_unverified: bool = False):
        self.cache, self.offline, self.progress, self.mirror = cache, offline, progress or Reporter(), mirror
        self.allow_unverified = allow_unverified
        self.root = cache.area("apt")

    def index(self, wanted: Spec | str | None = None, max_age: float = FRESH_FOR) -> Index:
        """The package index, fetched if it is older than `max_age` seconds, with all suites that are needed for what is wanted.

        That is a specification, a suite, or everything (None). If the mirror fails, returns what is known and prints a line.
        Raises FetchError if nothing is.
        """
        with readable_errors(self.cache.root):
            return self._index(wanted, max_age)

    def _index(self, wanted: Spec | str | None, max_age: float) -> Index:
        known = Index.load(self.root / "index.json")
        if self.offline:
            if known is None:
                raise FetchError("no package index in the cache, and --offline forbids fetching one")
            return known
        try:
            apt = self._apt()
            fresh = False
            if known and known.origin == apt.origin:
                fresh = 0 <= time.time() - known.updated < max_age
                if not fresh and self.failed_recently():
                    self.progress.say_once(f"the mirror did not respond recently: using the package index of "
                                           f"{_date(known.updated)}")
                    return known
            if known is None or not fresh:
                known = self._refresh(apt)
        except FetchError as error:
            if known is None:
                raise
            (self.root / "failed").touch()
            self.progress.say(f"{error}; using the package index of {_date(known.updated)}")
            return known
        return self._complete(apt, known, wanted)

    def kernels(self) -> list[tuple[str, Meta]]:
        """Key and metadata of every cached Debian kernel, oldest version first."""
        entries = [(entry.key, entry.meta) for entry in self.cache.entries("kernels") if entry.meta.get("suite")]
        return sorted(entries, key=lambda entry: (debian_version_key(entry[1]["version"]), "cloud" in entry[1]["package"]))

    def fetch(self, candidate: Candidate) -> Path:
        """The cache entry of a candidate, downloaded and unpacked if necessary. Raises FetchError."""
        head = candidate.head

        def build(root: Path) -> Meta:
            if self.offline:
                raise FetchError(f"{head.name} {head.version} is not in the cache, and --offline forbids fetching it")
            with self.cache.lock("apt", shared=True):
                debs = [self._download(package) for package in candidate.packages]
                for package, deb in zip(candidate.packages, debs, strict=True):
                    unpack(deb, root, WANTED if package.listed else MODULES)
            verified = self._verify(candidate, root)
            vmlinuz, modules, release = settle(root)
            if modules is None:
                raise FetchError(f"{head.name} {head.version} contains no modules for {release}")
            for deb in debs:
                shutil.rmtree(deb.parent, ignore_errors=True)
            return {"vmlinuz": str(vmlinuz.relative_to(root)), "modules": str(modules.relative_to(root)),
                    "release": release, "check_modules": not candidate.listed, "verified": verified}

        key, meta = key_of(candidate), {"package": head.name, "version": head.version, "suite": head.suite}
        if (known := self.cache.entry("kernels", key)) and not self.may_boot(self.cache.meta(known)):
            if self.offline:
                raise FetchError(f"{head.name} {head.version} in the cache is not verified, and --offline forbids fetching it anew: "
                                 "--allow-unverified boots it all the same")
            self.cache.discard(known)
        return self.cache.build("kernels", key, build, meta)

    def may_boot(self, meta: Meta) -> bool:
        """Whether a cached kernel is verified, or need not be. An earlier kdrift left no record; what was listed then was verified."""
        return bool(meta.get("verified")) or not meta.get("check_modules") or self.allow_unverified

    def _verify(self, candidate: Candidate, root: Path) -> str:
        """By which keys the unpacked files are verified; empty if they need not be.  Raises FetchError."""
        head = candidate.head
        index = f"the index of {head.suite}, signed by {self._apt().signers(head.suite)}"
        if candidate.listed:
            return index
        try:
            image = find_image(root)
            keys = check_modules(image, root / "lib/modules" / image_release(image))
        except (Unverified, SpecError) as error:
            if self.allow_unverified:
                self.progress.say(f"{head.name} {head.version} is not verified: {error}")
                return ""
            raise FetchError(f"{head.name} {head.version} cannot be verified: {error}; --allow-unverified boots it all the same") from None
        return f"{index}; the modules by {keys}, a key in the kernel's image"

    def fetch_userland(self, packages: list[str], suite: str, directory: Path) -> list[Path]:
        """Fetch packages of a release with all their dependencies into `directory`. Raises FetchError."""
        if self.offline:
            raise FetchError(f"{', '.join(packages)} of {suite} are not in the cache, and --offline forbids fetching them")
        self.index(suite)                   # fetches the signed list of the release
        with self.cache.lock("apt", shared=True), self.progress.transfer(f"{', '.join(packages)} of {suite}", None) as advance:
            return self._apt().download_with_dependencies(packages, suite, directory, advance)

    def _apt(self) -> Apt:
        return Apt(self.root, archives(mirror=self.mirror))

    def failed_recently(self) -> bool:
        try:
            return 0 <= time.time() - (self.root / "failed").stat().st_mtime < RETRY_AFTER
        except FileNotFoundError:
            return False

    def _refresh(self, apt: Apt) -> Index:
        began = time.time()
        with self.cache.lock("apt", note="waiting for another process that is using the package index"):
            index = Index.load(self.root / "index.json")
            if index and index.updated > began and index.origin == apt.origin:
                return index
            with self.progress.transfer("package lists of the Debian archive", None) as advance:
                failed = apt.update(advance)
            self._say_failed(apt, failed)
            index = read_index(apt, failed)
            index.save(self.root / "index.json")
            (self.root / "failed").unlink(missing_ok=True)
            return index

    def _complete(self, apt: Apt, index: Index, wanted: Spec | str | None) -> Index:
        """The index with what is needed of the large suites. Raises FetchError if the mirror fails and nothing fits."""
        while suites := index.needs(wanted):
            if self.failed_recently() and index.serves(wanted):
                self.progress.say_once(f"the mirror did not respond recently: continuing without the suites {', '.join(suites)}")
                return index
            index, failed = self._read(apt, index, suites if wanted is None else suites[:1])
            if failed:
                (self.root / "failed").touch()
                if not index.serves(wanted):
                    raise FetchError(f"cannot fetch the package lists of {', '.join(failed)} ({next(iter(failed.values()))})")
                self._say_failed(apt, failed)
                return index
        return index

    def _read(self, apt: Apt, index: Index, suites: list[str]) -> tuple[Index, dict[str, str]]:
        """The index with the lists of these suites; and the suites whose lists were not fetched, with the reasons."""
        with self.cache.lock("apt", note="waiting for another process that is using the package index"):
            known = Index.load(self.root / "index.json")
            if known and known.origin == apt.origin and known.updated >= index.updated:
                index, suites = known, [suite for suite in suites if suite in known.unread]
            if not suites:
                return index, {}
            try:
                with self.progress.transfer(f"package lists of {', '.join(suites)}", None) as advance:
                    failed = apt.update_whole(suites, advance)
                (self.root / "failed").unlink(missing_ok=True)
            except FetchError as error:
                failed = dict.fromkeys(suites, str(error))
            # An older list is better than none.
            read = [suite for suite in suites if suite not in failed or is_absence(failed[suite]) or apt.list_of(suite)]
            packages = [package for suite in read for package in read_packages(apt, suite)]
            index = index.extended(packages, read, {suite: failed[suite] for suite in read if suite in failed})
            index.save(self.root / "index.json")
            return index, {suite: reason for suite, reason in failed.items() if not is_absence(reason)}

    def _say_failed(self, apt: Apt, failed: dict[str, str]) -> None:
        for source in dict.fromkeys(apt.sources.values()):
            missing = [suite for suite in failed if apt.sources[suite] == source and not is_absence(failed[suite])]
            if missing:
                self.progress.say(f"cannot fetch the suites {', '.join(missing)} ({failed[missing[0]]}): continuing without them")

    def _download(self, package: Package) -> Path:
        apt = self._apt()
        directory = self.root / "downloads" / (package.sha256[:16] or f"{package.name}_{package.version}")
        directory.mkdir(parents=True, exist_ok=True)
        if not package.listed:
            self.progress.say(f"{package.name} {package.version} is in the archive's pool but not in its signed index: "
                              "checking each module's signature, here and in the kernel (module.sig_enforce=1)")
        with self.progress.transfer(package.name, package.size or None) as advance:
            return apt.download(f"{package.name} {package.version}", package.pool_path, package.suite, directory, package.sha256, advance)


def resolve(spec: Spec, archive: Archive) -> Kernel:
    """The Debian kernel for a specification of the kind "series" or "exact". Raises SpecError, FetchError."""
    if (architecture := _architecture()) != "amd64":
        raise SpecError(f"{spec.text}: unsupported architecture {architecture}: Debian kernels can be fetched on amd64 only")
    if spec.kind == "exact" and (kernel := _from_cache(spec, archive, "cloud-amd64")):
        return kernel
    try:
        return _kernel(spec, archive, _fetch_any(archive, spec))
    except (SpecError, FetchError) as error:
        kernel = _from_cache(spec, archive)
        if kernel is None:
            raise
        archive.progress.say_once(f"{error}; using {kernel.package} {kernel.version} from the cache")
        return kernel


def _fetch_any(archive: Archive, spec: Spec) -> Path:
    """Fetch the first candidate that the mirror has: of an old security update it may have kept one flavour only.

    A package that is also in a large suite may be there only.
    """
    candidates = _choose(spec, archive)
    while True:
        candidate = candidates.pop(0)
        try:
            return archive.fetch(candidate)
        except AbsentError as error:
            if not candidates and candidate.head.suite not in LARGE:
                for suite in archive.index(spec, math.inf).holders(candidate.head.version):
                    archive.index(suite, math.inf)
                candidates = [other for other in _candidates(spec, archive.index(spec, math.inf)) if other.head.suite in LARGE]
            if not candidates:
                raise
            another = "suite" if candidates[0].head.name == candidate.head.name else "flavour"
            archive.progress.say_once(f"{error}; trying another {another}")


def key_of(candidate: Candidate) -> str:
    """The cache key of a Debian kernel, from the hashes of its packages."""
    return hashlib.sha256("".join(package.sha256 or package.pool_path for package in candidate.packages).encode()).hexdigest()[:16]


def _choose(spec: Spec, archive: Archive) -> list[Candidate]:
    """The kernel that is meant; then, if no package was named, the other flavours of its version."""
    # A version in an old index stays valid; only "the newest" may have changed.
    index = archive.index(spec, math.inf if spec.kind == "exact" else FRESH_FOR)
    try:
        return _candidates(spec, index)
    except SpecError:
        return _candidates(spec, archive.index(max_age=RECENT))


def _candidates(spec: Spec, index: Index) -> list[Candidate]:
    chosen = index.find(spec)
    named = spec.kind == "exact" and spec.text != chosen.head.version
    return [chosen] if named else [chosen, *index.twins(chosen)]


def _from_cache(spec: Spec, archive: Archive, flavour: str = "") -> Kernel | None:
    """The newest cached kernel that fits; if the specification is only a version, only one of this flavour."""
    for key, meta in reversed(archive.kernels()):
        if spec.kind == "series":
            fits = in_series(meta["version"], spec.text) and "-rt-" not in meta["package"]
        else:
            fits = spec.text in (meta["package"], meta["release"]) or (
                spec.text == meta["version"] and flavour in meta["package"])
        if fits and archive.may_boot(meta) and (path := archive.cache.entry("kernels", key)):
            return _kernel(spec, archive, path)
    return None


def _kernel(spec: Spec, archive: Archive, path: Path) -> Kernel:
    meta = archive.cache.meta(path)
    verified = meta.get("verified", "" if meta.get("check_modules") else f"the index of {meta['suite']}, signed")
    return Kernel(spec.text, meta["release"], meta["package"], meta["version"], path / meta["vmlinuz"],
                  path / meta["modules"], path.name, meta.get("check_modules", False), verified=verified)


def _architecture() -> str:
    if shutil.which("dpkg"):
        return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True).stdout.strip()
    return {"x86_64": "amd64"}.get(platform.machine(), platform.machine())


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
