"""One case: its function, parameters and fixtures, as pytest resolved them when the file was made."""

import importlib
import inspect

import pytest

_PLAIN = (int, float, str, bytes, type(None))


class Unresolvable(Exception):
    """The case differs from what it was when the file was made; the message says how."""


class Node:
    """What fixtures see of the case."""

    def __init__(self, nodeid, marks):
        self.nodeid, self.marks = nodeid, marks
        self.user_properties = []

    def get_closest_marker(self, name):
        return next((mark for mark in self.marks if mark.name == name), None)


class Config:
    """Every option that lets a case run is on: starting this file asks for it."""

    @staticmethod
    def getoption(name):
        return name == "--mass"


class Request:
    def __init__(self, node, param):
        self.node, self.config = node, Config()
        self.param = param


class Case:
    """`manifest` is what reproduce.collect wrote; resolve() imports what it names, or raises Unresolvable."""

    def __init__(self, manifest):
        self.manifest = manifest
        self.values = {}
        self.endings = []

    def resolve(self):
        module = importlib.import_module(self.manifest["module"])
        self.function = getattr(module, self.manifest["function"])
        marks = getattr(module, "pytestmark", [])
        self.marks = [*getattr(self.function, "pytestmark", []), *(marks if isinstance(marks, list) else [marks])]
        self.fixtures = {name: [self._fixture(*place) for place in places] for name, places in self.manifest["fixtures"].items()}
        self.params = {}
        for name, chosen in self.manifest["params"].items():
            value, marks = self._param(name, chosen["index"])
            self.params[name] = value
            self.marks += marks
            if "repr" in chosen and repr(value) != chosen["repr"]:
                raise Unresolvable("parameter %s is %r here, but was %s when the file was made" % (name, value, chosen["repr"]))
        self.node = Node(self.manifest["id"], self.marks)
        for name in [*self.manifest["order"], *self._arguments(self.function)]:
            self._check(name, len(self.fixtures.get(name, [])) - 1)
        return self

    @staticmethod
    def _fixture(module, name):
        found = getattr(importlib.import_module(module), name, None)
        if not isinstance(found, pytest.Fixture):
            raise Unresolvable("%s has no fixture %s" % (module, name))
        return found

    def _check(self, name, depth):
        """Check the whole closure of a fixture."""
        if name == "request" or name in self.manifest["direct"]:
            return
        if depth < 0:
            raise Unresolvable("no fixture %s" % name)
        for needed in self._arguments(self.fixtures[name][depth].function):
            self._check(needed, depth - 1 if needed == name else len(self.fixtures.get(needed, [])) - 1)

    @staticmethod
    def _arguments(function):
        parameters = inspect.signature(function).parameters.values()
        return [each.name for each in parameters if each.default is inspect.Parameter.empty]

    def _param(self, name, index):
        """The value with this index, and its marks: from a parametrize mark, else from the fixture of that name."""
        for mark in self.marks:
            if mark.name != "parametrize":
                continue
            names = mark.args[0]
            if isinstance(names, str):
                names = [each.strip() for each in names.split(",") if each.strip()]
            if name in names:
                return self._of(mark.args[1][index], list(names).index(name), len(names))
        return self._of(self.fixtures[name][-1].params[index], 0, 1)

    @staticmethod
    def _of(chosen, position, width):
        if isinstance(chosen, pytest.Param):
            return chosen.values[position], list(chosen.marks)
        return (chosen if width == 1 else chosen[position]), []

    def set_up(self):
        for name in self.manifest["order"]:
            self.value(name)

    def call(self):
        self.function(**{name: self.value(name) for name in self._arguments(self.function)})

    def tear_down(self):
        """End every fixture, the last one first; then raise their first error."""
        failed = None
        while self.endings:
            try:
                next(self.endings.pop(), None)
            except BaseException as error:
                failed = failed or error
        if failed:
            raise failed

    def value(self, name, depth=None):
        if name in self.manifest["direct"]:
            return self.params[name]
        depth = len(self.fixtures[name]) - 1 if depth is None else depth
        if (name, depth) not in self.values:
            self.values[name, depth] = self._make(name, depth)
        return self.values[name, depth]

    def _make(self, name, depth):
        function = self.fixtures[name][depth].function
        arguments = {}
        for needed in self._arguments(function):
            if needed == "request":
                arguments[needed] = Request(self.node, self.params.get(name))
            else:
                arguments[needed] = self.value(needed, depth - 1 if needed == name else None)
        made = function(**arguments)
        if not inspect.isgeneratorfunction(function):
            return made
        self.endings.append(made)
        return next(made)
