"""What pytest knows about a test, recorded for a runner without pytest."""
import contextlib
import inspect
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest
from _pytest.mark import ParameterSet

from common.project import PROJECT

# How pytest marks a parameter without a fixture, and the fixtures that the runner itself provides.
_DIRECT = "get_direct_param_fixture_func"
_OURS = {"request"}
# Fixtures about the whole machine, which a private network would hide.
_OF_THE_MACHINE = {"audit"}
# Words in a source that need a tool, and the Debian package that has it.
_TOOLS = {"firewall.": "nftables", "nft": "nftables", "iptables": "iptables", "FLAVOURS": "iptables", "ipvs": "ipvsadm",
          "conntrack": "conntrack", "ipset": "ipset", "tcpdump": "tcpdump"}
_PLAIN = (int, float, str, bytes, bool, type(None))
OUTSIDE = "a test outside of kdrift cannot be exported"


class CannotExport(Exception):
    """The test cannot be run without pytest; the message says why."""


class Parameter(TypedDict):
    """The value of a parameter: its index in the list of values, and its repr() if that is the same in every version of Python."""

    index: int
    repr: NotRequired[str]


@dataclass
class Manifest:
    """One case, as inside/repro/case.py reads it.  `fixtures` are by name: (module, function), the last one counts; `direct` are
    parameters of the test that no fixture provides."""

    id: str
    module: str
    function: str
    promise: str
    order: list[str] = field(default_factory=list)
    fixtures: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    params: dict[str, Parameter] = field(default_factory=dict)
    direct: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)        # the case's module, and those with its fixtures
    virtual_clock: str = ""
    own_network: bool = True                                # for the process that runs the case; its hosts always have their own
    packages: list[str] = field(default_factory=list)       # Debian packages besides python3 and iproute2
    recorded: dict[str, str] | None = None                  # how it ended: {"kernel", "outcome", "kind", "message"}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Items:
    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)

    @staticmethod
    def pytest_report_collectionfinish() -> list[str]:
        return []


def is_outside(word: str) -> bool:
    """Whether it names a test outside of the project: these have their whole path (fixtures.naming)."""
    path = Path(word.partition("::")[0])
    return path.is_absolute() and not path.is_relative_to(PROJECT)


def collect(words: list[str]) -> list[pytest.Item]:
    """The tests that pytest finds for these words.  Raises CannotExport when it finds none or a file cannot be read."""
    if outside := list(filter(is_outside, words)):
        raise CannotExport(f"{outside[0]}: {OUTSIDE}")
    found = _Items()
    quiet = ["-p", "no:terminal", "-p", "no:xdist", "-c", str(PROJECT / "pytest.ini"), f"--rootdir={PROJECT}"]
    with contextlib.redirect_stderr(io.StringIO()):
        status = pytest.main([*quiet, "--collect-only", *words], plugins=[found])
    if status != pytest.ExitCode.OK or not found.items:
        raise CannotExport(f"no test matches {' '.join(words)}" if status in (0, 4, 5)
                           else "some tests cannot be collected: run ./kdrift pytest --collect-only")
    return found.items


def describe_all(items: list[pytest.Item]) -> tuple[list[Manifest], dict[str, str]]:
    """The manifest of each test; and, by id, why others cannot be exported."""
    cases, failed = [], {}
    for item in items:
        try:
            cases.append(describe(item))
        except CannotExport as error:
            failed[item.nodeid] = str(error)
    return cases, failed


def describe(item: pytest.Item) -> Manifest:
    """The manifest of a test.  Raises CannotExport."""
    if not isinstance(item, pytest.Function) or item.cls is not None:
        raise CannotExport("is not a plain function")
    found = Manifest(item.nodeid, module_of(item.path), item.originalname, inspect.getdoc(item.function) or item.originalname)
    found.order = [name for name in item.fixturenames if name not in _OURS]
    for name, definitions in item._fixtureinfo.name2fixturedefs.items():
        if definitions[-1].func.__name__ == _DIRECT:
            found.direct.append(name)
        elif name not in _OURS:
            found.fixtures[name] = [_place(name, each.func) for each in definitions]
    for name, value in (item.callspec.params if hasattr(item, "callspec") else {}).items():
        found.params[name] = {"index": _index(item, name)}
        if _plain(value):
            found.params[name]["repr"] = repr(value)
    found.modules = sorted({found.module, *(module for places in found.fixtures.values() for module, _name in places)})
    if mark := item.get_closest_marker("virtual_clock"):
        found.virtual_clock = mark.args[0]
    sources = "".join(PROJECT.joinpath(*module.split(".")).with_suffix(".py").read_text() for module in found.modules
                      if module.startswith("tests."))
    found.packages = sorted({package for word, package in _TOOLS.items() if word in sources})
    found.own_network = not _OF_THE_MACHINE.intersection(found.fixtures) and "everywhere(" not in sources
    return found


def _index(item: pytest.Function, name: str) -> int:
    """The index of the parameter's value: in the parametrize mark that names it, else among those of its fixture."""
    chosen = item.callspec.params
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if not isinstance(mark.args[0], str) else [each.strip() for each in mark.args[0].split(",") if each.strip()]
        if name in names:
            sets = [each.values if isinstance(each, ParameterSet) else (each,) if len(names) == 1 else each for each in mark.args[1]]
            return next(index for index, values in enumerate(sets) if all(map(_same, values, (chosen[each] for each in names))))
    values = item._fixtureinfo.name2fixturedefs[name][-1].params or ()
    return next(index for index, value in enumerate(values) if _same(value, chosen[name]))


def _same(one: object, other: object) -> bool:
    return one is other or type(one) is type(other) and one == other


def module_of(path: Path) -> str:
    """The dotted name of a source file of the project.  Raises CannotExport."""
    try:
        return ".".join(Path(path).relative_to(PROJECT).with_suffix("").parts)
    except ValueError:
        raise CannotExport(f"needs {path}, which is outside this project") from None


def _place(name: str, function: Callable[..., object]) -> tuple[str, str]:
    code = inspect.unwrap(function).__code__
    if "_pytest" in Path(code.co_filename).parts:
        raise CannotExport(f"uses pytest's own fixture {name}")
    return module_of(Path(code.co_filename)), function.__name__


def _plain(value: object) -> bool:
    """Whether its repr() is the same in every version of Python."""
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return all(map(_plain, value))
    return type(value) in _PLAIN
