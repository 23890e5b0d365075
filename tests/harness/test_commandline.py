"""The command line of ./kdrift: every command, its help, its words, and what is wrong with them."""

import subprocess
import sys
from importlib import import_module

import pytest

from cli import commandline, parser
from common.project import PROJECT

COMMANDS = [add.__name__ for add in commandline.COMMANDS]
# Python with neither the virtual environment nor any other package.
BARE = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from cli.commandline import parse; "
        "parse(sys.argv[1:])"]


def bare(*words):
    return subprocess.run([*BARE, *words], capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_needs_nothing_installed(command):
    done = bare(command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: kdrift {command} ")


def test_help_lists_every_command_by_its_name():
    done = bare("--help")
    assert done.returncode == 0, done.stderr
    assert [name for name in COMMANDS if f"\n    {name}" not in done.stdout] == []


@pytest.mark.parametrize("words", [["--version"], *([command, "--version"] for command in COMMANDS)], ids=" ".join)
def test_version_is_the_same_everywhere(words, capsys):
    with pytest.raises(SystemExit) as ended:
        commandline.parse(words)
    assert not ended.value.code
    assert capsys.readouterr().out == parser.version() + "\n"


@pytest.mark.parametrize("words, complaint", [
    (["frobnicate"], "'frobnicate'"), (["--nonsense"], "COMMAND"), (["merge"], "FILE"), (["kernels", "6.12"], "6.12"),
    (["merge", "a", "--mirror", "b"], "--mirror"), (["known", "--record", "--check"], "--check"), (["bench", "--runs", "many"], "many"),
    (["sensitivity", "--most", "0"], "--most"), (["export", "--kernel"], "--kernel"), (["chance", "--ad", "a"], "--ad"),
], ids=" ".join)
def test_wrong_usage_is_one_line_that_says_where_help_is(words, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        commandline.parse(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("kdrift: ") and said.endswith(" --help\n") and said.count("\n") == 1
    assert complaint in said


@pytest.mark.parametrize("command", ["pytest", "validate"])
def test_wrong_usage_that_pytest_finds_looks_alike(command):
    done = subprocess.run([PROJECT / "kdrift", command, "--nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"ERROR: unrecognized arguments: --nonsense; see ./kdrift {command} --help\n\n"


@pytest.mark.parametrize("words", [
    ["a", "b", "--report", "out", "--exact"], ["--report", "out", "a", "--exact", "b"], ["a", "--report=out", "b", "--exact"],
], ids=" ".join)
def test_options_may_stand_anywhere(words):
    options = commandline.parse(["merge", *words])
    assert (options.files, str(options.report), options.exact) == (["a", "b"], "out", True)


@pytest.mark.parametrize("words", [["--no-install", "merge", "a"], ["merge", "--no-install", "a"], ["pytest", "-k", "a", "--no-install"],
                                   ["--no-install", "pytest"]], ids=" ".join)
def test_no_install_may_stand_anywhere(words):
    assert commandline.parse(words).no_install
    assert not commandline.parse([word for word in words if word != "--no-install"]).no_install


@pytest.mark.parametrize("words, theirs", [
    (["-k", "a or b", "--kernel", "6.12", "tests/tcp"], ["-k", "a or b", "--kernel", "6.12", "tests/tcp"]),
    (["-x", "--no-install", "-vv"], ["-x", "-vv"]), (["-x", "--", "--help"], ["-x", "--help"]),
], ids=str)
def test_pytest_gets_its_words_as_they_are(words, theirs):
    assert commandline.parse(["pytest", *words]).words == theirs


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_module_that_runs_it(command):
    words = {"merge": ["a.json"], "chance": ["a.json"], "behaviour": ["a.json"], "explore": ["6.1", "6.12"], "suspects": ["6.1", "6.12"],
             "bisect": ["test.py", "6.1", "6.12"]}.get(command, [])
    assert callable(import_module(commandline.parse([command, *words]).module).run)
