"""The rooms of the project: imports go the allowed ways and in no circle, and what is private to a module stays there."""

import ast
import configparser
import graphlib
import subprocess
import sys

import grimp
import pytest

from common.project import PROJECT

RULES = PROJECT / "tests/harness/rooms.ini"
LINT = "import importlinter.cli, sys; sys.exit(importlinter.cli.lint_imports(config_filename=sys.argv[1], no_cache=True))"


def rooms():
    rules = configparser.ConfigParser()
    rules.read(RULES)
    return rules["importlinter"]["root_packages"].split()


def test_imports_go_only_the_allowed_ways():
    done = subprocess.run([sys.executable, "-c", LINT, str(RULES)], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0 and "0 broken" in done.stdout, done.stdout + done.stderr


def test_every_folder_of_modules_is_a_room_with_rules():
    """tests/ is what is tested with, and conftest.py is where all meet."""
    found = {path.parent.name for path in PROJECT.glob("*/__init__.py")}
    assert found == set(rooms())


def test_no_module_imports_itself_through_others():
    graph = grimp.build_graph(*rooms(), cache_dir=None)
    graphlib.TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()


def sources():
    """Every module of the project and its tree, by dotted name."""
    places = [PROJECT / room for room in rooms()] + [PROJECT / "tests"]
    paths = [path for place in places for path in place.rglob("*.py") if "__pycache__" not in path.parts]
    return {".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
            for path in paths}


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def trespasses(modules):
    """Where a module uses a private name of another one: by import, by attribute, or as a method of a class that it extends."""
    methods = {(name, each.name): {method.name for method in each.body if isinstance(method, ast.FunctionDef)}
               for name, tree in modules.items() for each in ast.walk(tree) if isinstance(each, ast.ClassDef)}
    for name, tree in modules.items():
        foreign = {}                        # what a name here stands for: a module, or a module and a name of it
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                foreign |= {each.asname or each.name: each.name for each in node.names if each.name in modules}
            elif isinstance(node, ast.ImportFrom):
                for each in node.names:
                    whole = f"{node.module}.{each.name}"
                    if whole in modules or node.module in modules:
                        foreign[each.asname or each.name] = whole if whole in modules else (node.module, each.name)
                        if is_private(each.name):
                            yield f"{name}:{node.lineno} imports {whole}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) in foreign:
                yield f"{name}:{node.lineno} uses {ast.unparse(node)}"
            if isinstance(node, ast.ClassDef):
                inherited = set().union(*(methods.get(foreign.get(ast.unparse(base)), set()) for base in node.bases))
                for each in ast.walk(node):
                    used = each.name if isinstance(each, ast.FunctionDef) else each.attr if isinstance(each, ast.Attribute) else ""
                    if is_private(used) and used in inherited:
                        yield f"{name}:{each.lineno} overrides or uses {used} of its base class"


def test_private_names_stay_in_their_module():
    assert list(trespasses(sources())) == []


@pytest.mark.parametrize("line, found", [
    ("from kernels.cache import _key", "imports kernels.cache._key"),
    ("from kernels import cache\ncache._key()", "uses cache._key"),
    ("import kernels.cache\nkernels.cache._key", "uses kernels.cache._key"),
    ("from kernels.cache import Cache\nCache._build", "uses Cache._build"),
    ("from kernels.cache import Cache\nclass Own(Cache):\n def _build(self): pass", "overrides or uses _build of its base class"),
    ("from kernels.cache import Cache\nclass Own(Cache):\n def build(self): self._build()", "overrides or uses _build of its base class"),
    ("from kernels.cache import Cache\nclass Own(Cache):\n def _own(self): self._own()", ""),
])
def test_a_private_name_of_another_module_is_found(line, found):
    base = ast.parse("class Cache:\n def _build(self): pass\ndef _key(): pass")
    seen = list(trespasses({"kernels": ast.parse(""), "kernels.cache": base, "vm.line": ast.parse(line)}))
    assert [each.partition(" ")[2] for each in seen] == ([found] if found else [])
