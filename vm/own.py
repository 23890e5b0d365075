"""Tests of the user's own: files outside the project, which run with its fixtures."""
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from common.project import PROJECT

SKIPPED = {"__pycache__", ".pytest_cache", "node_modules"}
LARGEST = 16 << 20                          # bytes that are sent to a machine
MOST = 2000                                 # files


class TooMuch(Exception):
    """A directory is no directory of tests; the message says so in one line."""


def own_directories(tests: Iterable[str]) -> list[Path]:
    """The directories of those tests (files, directories, node ids) that are not the project's, none below another.

    A package comes as a whole.
    """
    found = set()
    for test in tests:
        path = Path(test.partition("::")[0])
        if path.is_absolute() and path.exists() and not path.is_relative_to(PROJECT):
            directory = path if path.is_dir() else path.parent
            while (directory.parent / "__init__.py").is_file():
                directory = directory.parent
            found.add(directory)
    return sorted(each for each in found if found.isdisjoint(each.parents))


def shared_names(directories: Sequence[Path]) -> dict[Path, str]:
    """What these are called where the rest of their paths is nobody's business: own/NAME, with as many names as tell them apart."""
    for count in range(1, max((len(each.parts) for each in directories), default=0) + 1):
        found = {each: "/".join(("own", *each.parts[1:][-count:])) for each in directories}
        if len(set(found.values())) == len(directories):
            return found
    return {}


def own_arguments(directories: Sequence[Path]) -> list[str]:
    """What pytest needs before it can collect there: the project's conftest.py, and a root above the directories.

    A conftest.py below the root belongs to its directory, any other to all tests.
    """
    if not directories:
        return []
    root = Path(os.path.commonpath(directories)).parent
    return ["-c", str(PROJECT / "pytest.ini"), f"--rootdir={root}", str(PROJECT / "conftest.py")]


def own_files(directories: Sequence[Path]) -> list[Path]:
    """All files there, and conftest.py of the directories above, which pytest reads too.  Raises TooMuch."""
    above = {parent / "conftest.py" for directory in directories for parent in directory.parents if parent not in PROJECT.parents}
    found = sorted(path for path in above if path.is_file())
    for directory in directories:
        size, number = 0, 0
        for path in _files(directory):
            found.append(path)
            size, number = size + path.stat().st_size, number + 1
            if size > LARGEST or number > MOST:
                raise TooMuch(f"{directory} has more than {MOST} files or {LARGEST >> 20} MB, and all of it would be sent to the machine: "
                              "put the tests into a directory of their own")
    return found


def _files(directory: Path) -> Iterator[Path]:
    for place, names, files in os.walk(directory):
        names[:] = sorted(name for name in names if name not in SKIPPED and not name.startswith("."))
        yield from (path for file in sorted(files) if (path := Path(place, file)).is_file() and os.access(path, os.R_OK))
