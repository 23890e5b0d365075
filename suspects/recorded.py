"""Which functions each test executes on a kernel, kept in the cache: recording them takes two more runs of the tests."""
import gzip
import hashlib
import json
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from common.project import PROJECT
from kernels.cache import default_root
from kernels.extract import Kernel
from report.results import write_whole
from suspects.compare import FunctionName

DIRECTORY = "executed"                      # of the cache
# What all tests share; a test's own file is looked at for itself.
SHARED = ("conftest.py", "fixtures/**/*.py", "netns/**/*.py")


class Recorded:
    """What is known of one kernel: by test, its outcome and the functions that it executes."""

    def __init__(self, kernel: Kernel) -> None:
        shared = hashlib.sha256(kernel.key.encode())
        for pattern in SHARED:
            for file in sorted(PROJECT.glob(pattern)):
                shared.update(file.read_bytes())
        self.path = default_root() / DIRECTORY / f"{shared.hexdigest()[:16]}.json.gz"
        self._found: dict[str, tuple[str, str, frozenset[FunctionName]]] = {}
        self._files: dict[str, str] = {}
        try:
            document = json.loads(gzip.decompress(self.path.read_bytes()))
            names = [FunctionName(module, name) for module, name in document["functions"]]
            for test, (file, outcome, numbers) in document["tests"].items():
                self._found[test] = file, outcome, frozenset(names[number] for number in numbers)
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError, AttributeError):
            self._found = {}                # there is none, or it is damaged: it can be recorded again

    def __contains__(self, test: str) -> bool:
        return test in self._found and self._found[test][0] == self._file(test)

    def missing(self, tests: Iterable[str]) -> list[str]:
        """Those that are not recorded, or whose file has changed since."""
        return [test for test in tests if test not in self]

    def functions(self, test: str) -> Collection[FunctionName]:
        return self._found[test][2] if test in self else ()

    def outcomes(self) -> dict[str, str]:
        """Of all tests that are recorded."""
        return {test: self._found[test][1] for test in self._found if test in self}

    def add(self, found: Mapping[str, tuple[str, Collection[FunctionName]]]) -> None:
        """Keep the outcome and the functions of tests.  Raises OSError."""
        for test, (outcome, functions) in found.items():
            self._found[test] = self._file(test), outcome, frozenset(functions)
        names = sorted({each for _file, _outcome, functions in self._found.values() for each in functions})
        numbers = {name: number for number, name in enumerate(names)}
        document = {"functions": [[each.module, each.name] for each in names],
                    "tests": {test: [file, outcome, sorted(numbers[each] for each in functions)]
                              for test, (file, outcome, functions) in self._found.items()}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, gzip.compress(json.dumps(document).encode()))

    def _file(self, test: str) -> str:
        name = test.partition("::")[0]
        if name not in self._files:
            path = Path(PROJECT, name)
            self._files[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""
        return self._files[name]
