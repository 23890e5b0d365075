"""Which kernels stand between two versions: of the archive, of the cache, and of a directory with packages."""
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import FetchError, SpecError
from kernels.debian import Archive
from kernels.packages import debian_version_key
from kernels.unpack import deb_fields

# The package with the image: Debian, Ubuntu; Fedora, SUSE, Oracle.
_WITH_IMAGE = re.compile(r"linux-(image|binary)-(unsigned-)?\d.*|kernel(-(?!modules)\w+)?-core|kernel|kernel-(default|vanilla|uek)")
_WITH_MODULES = re.compile(r"linux-(main-)?modules-(extra-)?\d.*|kernel(-\w+)?-modules(-core|-extra)?")
_RPM = re.compile(r"(?P<name>.+)-(?P<version>\d[^-]*-[^-]+)\.x86_64\.rpm")
_RELEASE = re.compile(r"-(\d\S*)$")          # of a kernel, in the name of Debian's and Ubuntu's packages


@dataclass(frozen=True)
class Available:
    """A kernel that can be had: the version that gives its place in the order, and the specification that names it (kernels.grammar)."""

    version: str
    spec: str


def in_archive(archive: Archive) -> list[Available]:
    """Every version of the archive and of the cache, in whichever suites and flavours; offline of the cache alone.

    Realtime kernels are left out. Raises FetchError if there is neither an index nor a cached kernel.
    """
    cached = [meta["version"] for _key, meta in archive.kernels() if "-rt-" not in meta["package"]]
    listed: list[str] = []
    if not archive.offline:
        try:
            listed = [each.head.version for each in archive.index().candidates if each.head.flavour != "rt-amd64"]
        except FetchError as error:
            if not cached:
                raise
            archive.progress.say(f"{error}; only the cached kernels are known")
    return [Available(version, version) for version in dict.fromkeys([*listed, *cached])]


def in_directory(directory: Path) -> list[Available]:
    """The kernels of the .deb and .rpm files there, each with its packages of modules. Raises SpecError, FetchError."""
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix in (".deb", ".rpm"))
    except OSError as error:
        raise SpecError(f"{directory}: {error.strerror}") from None
    packages = [(path, *_named(path)) for path in paths]
    found = []
    for path, name, version in packages:
        if not _WITH_IMAGE.fullmatch(name):
            continue
        release = _RELEASE.search(name)
        modules = [other for other, its_name, its_version in packages if its_version == version and _WITH_MODULES.fullmatch(its_name)
                   and (release is None or its_name.endswith(release[0]))]
        found.append(Available(version, ",modules=".join(map(str, [path.absolute(), *(each.absolute() for each in modules)]))))
    if not found:
        raise SpecError(f"{directory} has no .deb or .rpm with a kernel")
    return found


def between(kernels: Iterable[Available], old: str, new: str) -> list[Available]:
    """Those after `old` and before `new`, in order of their versions; of one version the last that is given."""
    by_version = {each.version: each for each in kernels}
    first, last = debian_version_key(old), debian_version_key(new)
    within = [each for each in by_version.values() if first < debian_version_key(each.version) < last]
    return sorted(within, key=lambda each: debian_version_key(each.version))


def several_series(versions: Sequence[str]) -> list[str]:
    """The series of these versions, if they are of more than one: stable updates of two series are no line of history."""
    series = list(dict.fromkeys(".".join(re.findall(r"\d+", version)[:2]) for version in versions))
    return series if len(series) > 1 else []


def _named(path: Path) -> tuple[str, str]:
    """Name and version of a package; empty if it is not for this machine."""
    if path.suffix == ".deb":
        fields = deb_fields(path)
        return (fields["Package"], fields["Version"]) if fields.get("Architecture") == "amd64" else ("", "")
    parts = _RPM.fullmatch(path.name)
    return (parts["name"], parts["version"]) if parts else ("", "")
