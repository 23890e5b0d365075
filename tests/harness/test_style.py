"""The sources pass the linters and the type checker."""

import re
import subprocess
import sys
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest

from common.project import PROJECT
from kernels.cache import default_root
from report.page import PARTS, SCRIPTS

ROOMS = ConfigParser()
ROOMS.read(PROJECT / "tests/harness/rooms.ini")
HOST = sorted(re.findall(r"\w+", ROOMS["importlinter:contract:down"]["layers"]))        # the rooms whose types are checked


def complaints(*command, directory=PROJECT):
    """What a checker writes where it finds fault; empty where it finds none."""
    done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.stdout or not done.returncode, f"{command[0]} ended with status {done.returncode} and said nothing"
    return done.stdout if done.returncode else ""


def lint(*words):
    """`ruff check`, by ruff.toml."""
    return complaints(sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", *words)


def test_sources_pass_ruff():
    assert lint() == ""


@pytest.mark.parametrize("source, rule", [
    ("import os\n", "F401"), ("import sys\nimport ast\nprint(ast, sys)\n", "I001"), ("print(name)\n", "F821"),
    (f"x = '{141 * 'x'}'\n", "E501"), ("print(zip([], []))\n", "B905"), ("x = 1 \n", "W291"),
])
def test_ruff_finds_what_it_is_told_to_look_for(tmp_path, source, rule):
    (tmp_path / "bad.py").write_text(source)
    assert f" {rule} " in lint(f"--config={PROJECT / 'ruff.toml'}", str(tmp_path))


def check_types(directory=PROJECT):
    """mypy by mypy.ini, with its cache beside that of the kernels."""
    cache = default_root().with_name("kdrift-mypy")
    return complaints(sys.executable, "-m", "mypy", f"--config-file={PROJECT / 'mypy.ini'}", f"--cache-dir={cache}", "--no-error-summary",
                      directory=directory)


def test_types_of_the_hosts_rooms_agree():
    assert check_types() == ""


def test_mypy_checks_every_room_of_the_host(tmp_path):
    for room in HOST:
        (tmp_path / room).mkdir()
        (tmp_path / room / "wrong.py").write_text("def number() -> int:\n    return ''\n\n\ndef untyped(word):\n    return word\n")
    found = re.findall(r"^(\w+)/wrong\.py:(\d+): .*\[([\w-]+)\]$", check_types(tmp_path), re.MULTILINE)
    assert sorted(found) == [(room, *what) for room in HOST for what in (("2", "return-value"), ("5", "no-untyped-def"))]


def lint_script(path):
    """oxlint on a script as the page has it: its files one after the other."""
    program = Path(find_spec("mypy").origin).parents[1] / "bin/oxlint"
    return complaints(program, f"--config={PROJECT / 'tests/harness/oxlint.json'}", "--format=unix", path)


def test_script_of_the_page_passes_oxlint(tmp_path):
    (tmp_path / "page.mjs").write_text("".join((PARTS / name).read_text() for name in SCRIPTS))
    assert lint_script(tmp_path / "page.mjs") == ""


def test_page_has_every_script():
    assert sorted(SCRIPTS) == sorted(path.name for path in PARTS.glob("*.js"))


@pytest.mark.parametrize("source, complaint", [
    ("const x = ;\n", "Unexpected token"), ("f(1);\n", "'f' is not defined"), ("const x = 1;\n", "'x' is declared but never used"),
    ("alert(location == 1);\n", "Expected === and instead saw =="),
])
def test_oxlint_finds_what_it_is_told_to_look_for(tmp_path, source, complaint):
    (tmp_path / "bad.mjs").write_text(source)
    assert complaint in lint_script(tmp_path / "bad.mjs")
