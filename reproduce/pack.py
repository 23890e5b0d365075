"""repro.pyz: one or more cases with all that they import, in one file that python3 runs."""
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

from common.project import PROJECT
from reproduce import vendor
from reproduce.collect import Manifest
from reproduce.transform import for_old_python

INSIDE = Path(__file__).with_name("inside")
SHARED = ("netns", "fixtures")
_FIRST_LINE = b"#!/usr/bin/env python3\n"
_WHEN = (2026, 1, 1, 0, 0, 0)               # date of every file, so that the same case gives the same bytes


def pack(cases: Sequence[Manifest], sources: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The file's contents; `sources` are those of modules that are no files of the project.  Raises transform.TooNew for a source that
    Python 3.8 cannot parse."""
    own = {"cases.json": json.dumps([case.as_dict() for case in cases], indent=1).encode()}
    for name in sorted({module for case in cases for module in case.modules}):
        own |= {f"{name}.py": for_old_python(sources[name], name).encode()} if name in sources else _module(name)
    return _added(_shared(), {name: data for name, data in own.items() if not name.startswith(SHARED)})


def write(target: Path, cases: Sequence[Manifest], sources: Mapping[str, str] = MappingProxyType({})) -> None:
    """Likewise, into a file. Raises OSError."""
    target.write_bytes(pack(cases, sources))
    target.chmod(0o755)


def _added(archive: bytes, files: dict[str, bytes]) -> bytes:
    """The archive with these files added; the same files give the same bytes."""
    whole = io.BytesIO(archive)
    whole.seek(0, io.SEEK_END)
    with zipfile.ZipFile(whole, "a") as zipped:
        for name, data in sorted(files.items()):
            zipped.writestr(zipfile.ZipInfo(name, _WHEN), data, zipfile.ZIP_DEFLATED)
    return whole.getvalue()


@cache
def _shared() -> bytes:
    """What every case needs, as an archive: the runner, netns, the fixtures, and third-party libraries."""
    found = {str(path.relative_to(INSIDE)): path.read_bytes() for path in _sources(INSIDE)}
    for place in SHARED:
        found |= {str(path.relative_to(PROJECT)): _old(path) for path in _sources(PROJECT / place)}
    return _added(_FIRST_LINE, found | vendor.files())


def _sources(top: Path) -> Iterable[Path]:
    return sorted(path for path in top.rglob("*.py") if "__pycache__" not in path.parts)


@cache
def _old(path: Path) -> bytes:
    return for_old_python(path.read_text(), str(path.relative_to(PROJECT))).encode()


@cache
def _module(name: str) -> dict[str, bytes]:
    """A module of the project by its dotted name, with the packages above it, whose __init__ a zip file needs."""
    parts = name.split(".")
    packages = {"/".join([*parts[:depth], "__init__.py"]): b"" for depth in range(1, len(parts))}
    packages = {each: (PROJECT / each).read_bytes() if (PROJECT / each).exists() else data for each, data in packages.items()}
    return packages | {"/".join(parts) + ".py": _old(PROJECT.joinpath(*parts).with_suffix(".py"))}
