"""A pytest plugin that lists what -k may match in each test, and one that leaves out files in which it matches nothing.

A session with kernels selects its tests on the host.  To import all files for one of their tests would take a second.
"""
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from _pytest.mark import KeywordMatcher
from _pytest.mark.expression import Expression

from vm.image import PRELOAD

BYTECODE, LIST = "KDRIFT_BYTECODE", "KDRIFT_INVENTORY"      # variables: a directory, a file


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Keep the project's bytecode in the directory that KDRIFT_BYTECODE names.

    PYTHONPYCACHEPREFIX would also have the standard library and the virtual environment compiled there, which takes a second.
    """
    for name in PRELOAD:
        importlib.import_module(name.removesuffix(".*"))
    sys.pycache_prefix = os.environ[BYTECODE]


def pytest_configure(config: pytest.Config) -> None:
    """All rows of tables: which of them run is for the session to say."""
    config.option.tables = "all"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write the list to the file that KDRIFT_INVENTORY names."""
    found: dict[str, list[list[str]]] = {}
    for item in session.items:
        names = sorted(KeywordMatcher.from_item(item)._names)
        found.setdefault(str(item.path.relative_to(session.config.rootpath)), []).append(names)
    Path(os.environ[LIST]).write_text(json.dumps(found))


class Skim:
    """Leaves out the listed files that have no test for the expression of -k."""

    def __init__(self, project: Path, expression: str, listed: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Raises SyntaxError if it is none."""
        compiled = Expression.compile(expression)
        self.useless = {project / file for file, tests in listed.items()
                        if not any(compiled.evaluate(KeywordMatcher(frozenset(names))) for names in tests)}

    @pytest.hookimpl
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        return True if collection_path in self.useless else None
