"""The sources pass the linter, and the page's scripts can be parsed."""

import shutil
import subprocess
import sys

import pytest

from common.project import PROJECT

SCRIPTS = sorted((PROJECT / "report/page").glob("*.js"))


def complaints(*command):
    """What a checker writes where it finds fault; empty where it finds none."""
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
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


@pytest.fixture
def parse():
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: nothing else here parses JavaScript")
    return lambda script: complaints(node, "--check", str(script))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_of_the_page_parse(parse, script):
    assert parse(script) == ""


def test_a_script_that_does_not_parse_is_found(parse, tmp_path):
    (tmp_path / "bad.js").write_text("const x = ;\n")
    assert "SyntaxError" in parse(tmp_path / "bad.js")
