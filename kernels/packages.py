"""The kernel packages of the Debian archive, and which of them make up a kernel.

Up to 6.18 one linux-image package holds image and modules. Since 6.19 linux-image may only depend on linux-binary
(or linux-binary-unsigned), which holds the image, and on linux-modules.
"""

import functools
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import SpecError
from kernels.grammar import Spec

NAME = re.compile(r"linux-(?P<part>image|binary-unsigned|binary|modules)-(?P<release>\d\S*?-(?P<flavour>"
                  r"(?:cloud-|rt-)?amd64))(?P<unsigned>-unsigned)?")
FLAVOUR = re.compile(r"-(?:cloud-|rt-)?amd64$")
PartKey = tuple[tuple[int, ...] | int, ...]
VersionKey = tuple[int, PartKey, PartKey]


@dataclass(frozen=True)
class Package:
    """One binary package of one suite; size in bytes, sha256 in hexadecimal.

    A package that is still in the archive but no longer in the index has size 0 and no sha256. `path` is in the archive, empty if unknown.
    """

    name: str
    version: str
    suite: str
    size: int
    sha256: str
    depends: tuple[str, ...]
    path: str = ""

    @property
    def release(self) -> str:
        """The kernel's release (uname -r)."""
        return _parsed(self.name)["release"]

    @property
    def flavour(self) -> str:
        """cloud-amd64, amd64 or rt-amd64."""
        return _parsed(self.name)["flavour"]

    @property
    def signed(self) -> bool:
        return "unsigned" not in self.name

    @property
    def listed(self) -> bool:
        return bool(self.sha256)

    @property
    def pool_path(self) -> str:
        """Its path in the archive; if unknown, that of a package built from the source package linux."""
        return self.path or f"pool/main/l/linux/{self.name}_{self.version.rpartition(':')[2]}_amd64.deb"


@dataclass(frozen=True)
class Candidate:
    """A kernel that can be fetched: the package it is known by, and all packages to fetch."""

    head: Package
    packages: tuple[Package, ...]

    @property
    def series(self) -> str:
        """The first two numbers of the version, such as 6.12."""
        return ".".join(re.findall(r"\d+", self.head.version)[:2])

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(package.size for package in self.packages)

    @property
    def listed(self) -> bool:
        """Whether the signed index covers all of its packages."""
        return all(package.listed for package in self.packages)

    @property
    def rank(self) -> tuple[VersionKey, bool, bool]:
        """A sort key with the best last: by version, then cloud before full, then signed before unsigned."""
        return (debian_version_key(self.head.version), self.head.flavour == "cloud-amd64", self.head.signed)


class Index:
    """The known kernel packages, kept in a small file beside apt's lists.

    `updated` is in seconds since the epoch; `failed` maps missing suites to reasons; `origin` identifies the sources.
    `unread` maps the suites whose lists were not fetched to their kernels by release and version; none if they are unknown.
    """

    def __init__(self, packages: Iterable[Package], updated: float, failed: dict[str, str], origin: str = "",
                 unread: dict[str, list[tuple[str, str]]] | None = None):
        self.packages, self.updated, self.failed, self.origin, self.unread = list(packages), updated, failed, origin, unread or {}

    def extended(self, packages: Iterable[Package], suites: Iterable[str], failed: dict[str, str]) -> "Index":
        """This index with the packages of suites that were unread."""
        unread = {suite: kernels for suite, kernels in self.unread.items() if suite not in suites}
        return Index([*self.packages, *packages], self.updated, self.failed | failed, self.origin, unread)

    @functools.cached_property
    def candidates(self) -> list[Candidate]:
        """Every complete kernel of every suite, oldest first."""
        by_version = {}
        for package in sorted(self.packages, key=lambda package: package.suite, reverse=True):
            by_version[package.name, package.version] = package
        found = []
        for head in by_version.values():
            kernel = _complete(head, by_version)
            if kernel and not (head.name.startswith("linux-binary") and _has_image(head, by_version)):
                found.append(Candidate(head, kernel))
        return sorted(found, key=lambda candidate: candidate.rank)

    def newest(self, prefix: str) -> Candidate:
        """The newest cloud or full kernel of a series: 6, 6.12 or 6.12.107. Raises SpecError if there is none."""
        usual = [candidate for candidate in self.candidates if candidate.head.flavour != "rt-amd64"]
        fitting = [candidate for candidate in usual if in_series(candidate.head.version, prefix)]
        if not fitting:
            raise SpecError(f"no Debian kernel {prefix} in the archive: {_nearest(prefix, usual)}")
        return fitting[-1]

    def exact(self, name: str) -> Candidate:
        """The kernel with this package name, version or release. Raises SpecError if there is none."""
        def matches(candidate: Candidate) -> bool:
            head = candidate.head
            parts = (part.name for part in candidate.packages)
            return name in (head.name, head.version, head.release, *parts)

        fitting = [candidate for candidate in self.candidates if matches(candidate)]
        usual = [candidate for candidate in fitting if candidate.head.flavour != "rt-amd64"]
        if not fitting:
            raise SpecError(f"no Debian kernel package or version {name} in the package index: "
                            f"{_nearest(name.removeprefix('linux-image-'), self.candidates)}")
        return (usual or fitting)[-1]

    def find(self, spec: Spec) -> Candidate:
        """The kernel that a specification means. Raises SpecError if there is none."""
        return self.newest(spec.text) if spec.kind == "series" else self.exact(spec.text)

    def serves(self, wanted: Spec | str | None) -> bool:
        """Whether something that is wanted (see `needs`) is known, if not necessarily the best of it."""
        if not isinstance(wanted, Spec):
            return wanted not in self.unread
        return self._best(wanted) is not None

    def _best(self, spec: Spec) -> Candidate | None:
        try:
            return self.find(spec)
        except SpecError:
            return None

    def needs(self, wanted: Spec | str | None) -> list[str]:
        """The suites to read for a specification, for one suite, or for everything (None).

        For a specification those that may hold its kernel, or one that is better than the best known, the likeliest first: once
        that is read, the others may not be needed.
        """
        if not isinstance(wanted, Spec):
            return [suite for suite in self.unread if wanted in (None, suite)]
        best = self._best(wanted)
        named = wanted.kind == "exact" and best is not None and wanted.text != best.head.version
        found = {}
        for suite, kernels in self.unread.items():
            better = [debian_version_key(version) for release, version in kernels
                      if _means(wanted, release, version) and _may_be_better(version, best, named)]
            if better or not kernels:
                found[suite] = (not kernels, max(better, default=debian_version_key("0")))
        return sorted(found, key=lambda suite: found[suite], reverse=True)

    def holders(self, version: str) -> list[str]:
        """The unread suites that may hold a kernel of this version."""
        return [suite for suite, kernels in self.unread.items() if not kernels or version in dict(kernels).values()]

    def twins(self, chosen: Candidate) -> list[Candidate]:
        """Other packages of the same version, signed and not realtime, best first."""
        return [candidate for candidate in reversed(self.candidates) if candidate.head.version == chosen.head.version
                and candidate.head.signed and candidate.head.flavour not in ("rt-amd64", chosen.head.flavour)]

    def save(self, path: Path) -> None:
        """Write the index to a file atomically."""
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            temporary.write_text(json.dumps({"updated": self.updated, "failed": self.failed, "origin": self.origin,
                                             "unread": self.unread, "packages": [asdict(package) for package in self.packages]}))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "Index | None":
        """The saved index; None if there is no readable one."""
        try:
            saved = json.loads(path.read_bytes())
            packages = [Package(**{**entry, "depends": tuple(entry["depends"])}) for entry in saved["packages"]]
            unread = {suite: [(release, version) for release, version in kernels] for suite, kernels in saved["unread"].items()}
            words = [word for each in packages for word in (each.name, each.version, each.suite, each.sha256, each.path, *each.depends)]
            words += [word for kernels in unread.values() for kernel in kernels for word in kernel]
            if not all(isinstance(word, str) for word in words) or not all(NAME.fullmatch(each.name) for each in packages):
                return None
            return cls(packages, saved["updated"], saved["failed"], saved["origin"], unread)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def _means(spec: Spec, release: str, version: str) -> bool:
    """Whether a specification may mean a kernel of this version, whatever the flavours of the specification and of `release`."""
    if spec.kind == "series":
        return in_series(version, spec.text)
    parts = NAME.fullmatch(spec.text)
    return spec.text == version or FLAVOUR.sub("", parts["release"] if parts else spec.text) == FLAVOUR.sub("", release)


def _may_be_better(version: str, best: Candidate | None, named: bool) -> bool:
    """Whether a suite with this version may hold a kernel that ranks above `best`; one whose flavour is named has no other flavours."""
    if best is None or best.head.version == version:
        return best is None or not best.head.signed or not (named or best.head.flavour == "cloud-amd64")
    return debian_version_key(version) > debian_version_key(best.head.version)


def _parsed(name: str) -> re.Match[str]:
    """The parts of a name that kernels.lists or _unlisted() has taken for a kernel package's."""
    parts = NAME.fullmatch(name)
    assert parts, name
    return parts


def _complete(head: Package, known: dict[tuple[str, str], Package]) -> tuple[Package, ...] | None:
    """The packages of the kernel that `head` stands for; None if it stands for none or a package is unavailable."""
    part = _parsed(head.name)["part"]
    if part == "modules":
        return None
    if part == "image" and not head.depends:
        return (head,)
    needed = [head.name, f"linux-modules-{head.release}"] if part.startswith("binary") else head.depends
    if not any(name.startswith("linux-binary-") for name in needed):
        return None
    parts = [known.get((name, head.version)) or _unlisted(name, head) for name in needed]
    return tuple(part for part in parts if part) if all(parts) else None


def _unlisted(name: str, head: Package) -> Package | None:
    """The modules of a signed kernel that a newer one has replaced: backports lists only the newest, the pool keeps them.

    No signature covers the package as a whole; the kernel, whose own package is covered, checks each module's signature.
    """
    if head.signed and name.startswith("linux-modules-"):
        return Package(name, head.version, head.suite, 0, "", ())
    return None


def _has_image(head: Package, known: dict[tuple[str, str], Package]) -> bool:
    image = known.get((f"linux-image-{head.release}", head.version))
    return image is not None and _complete(image, known) is not None


def _nearest(wanted: str, candidates: list[Candidate]) -> str:
    series = sorted({candidate.series for candidate in candidates}, key=debian_version_key)
    if not series:
        return "the package index is empty"
    key = debian_version_key(re.split(r"[^\d.]", wanted)[0].rstrip(".") or "0")
    place = sum(debian_version_key(name) < key for name in series)
    return f"the nearest series are {', '.join(series[max(0, place - 2):place + 2])}"


def debian_version_key(version: str) -> VersionKey:
    """A sort key in the order of Debian versions (deb-version(7))."""
    epoch, _, rest = version.rpartition(":") if ":" in version else ("0", "", version)
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch), _part_key(upstream), _part_key(revision)


def _part_key(part: str) -> PartKey:
    """Digits compare as numbers; ~ sorts before the end, letters before other characters."""
    key: list[tuple[int, ...] | int] = []
    for text, number in re.findall(r"(\D*)(\d*)", part):
        order = [-1 if char == "~" else ord(char) if char.isalpha() else ord(char) + 256 for char in text]
        key.append((*order, 0))
        key.append(int(number or 0))
    return tuple(key)


def in_series(version: str, prefix: str) -> bool:
    """Whether a package version belongs to a series: 6.12.107-1 to 6, 6.12 and 6.12.107, not to 6.1."""
    upstream = version.rpartition(":")[2].rpartition("-")[0] or version
    return upstream == prefix or upstream.startswith((f"{prefix}.", f"{prefix}~"))
