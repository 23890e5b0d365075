"""What ./kdrift does before it starts a command: which Python it goes on in, and what it installs."""

import os
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import SimpleNamespace

import pytest

from cli import commandline
from tests.harness.sessions import ROOT


@pytest.fixture
def starter():
    """./kdrift as a module."""
    loader = SourceFileLoader("starter", str(ROOT / "kdrift"))
    module = module_from_spec(spec_from_loader("starter", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def chosen(starter, tmp_path, monkeypatch):
    """chosen(name, complete): the system's Python that it goes on in, where that one has this name, and all that it takes or not."""
    def choose(name, complete):
        python, started = tmp_path / "python3", []
        python.unlink(missing_ok=True)
        python.symlink_to(name)
        (tmp_path / name).touch()
        monkeypatch.setattr(starter, "SYSTEM_PYTHON", str(python))
        monkeypatch.setattr(starter.os.path, "isdir", lambda place: complete and place == f"/usr/lib/{name}/ensurepip")
        monkeypatch.setattr(starter.os, "execv", lambda program, words: started.append((program, words)))
        starter.prefer_the_systems_python()
        assert started in ([], [(str(python), [str(python), *sys.argv])])
        return bool(started)

    return choose


def test_it_is_the_systems_own_where_that_has_what_is_needed(chosen):
    assert [chosen("python3.11", True), chosen("python3.13", True), chosen("python4.0", True)] == [True] * 3
    assert [chosen("python3.9", True), chosen("python3.11", False), chosen("pypy", True)] == [False] * 3


def test_a_virtual_environment_of_the_systems_python_will_do(chosen, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    assert not chosen("python3.11", True)


@pytest.fixture
def started(starter, tmp_path, monkeypatch):
    """started(*words): the exit status of ./kdrift where no program of PROGRAMS is; nothing may be run but the command."""
    def forbidden(*words, **_options):
        pytest.fail(f"runs {words}")

    def start(*words):
        return starter.main(list(words))

    monkeypatch.setattr(starter.os, "environ", dict(os.environ))
    monkeypatch.setattr(starter, "prefer_the_systems_python", lambda: None)
    monkeypatch.setattr(starter, "installed", lambda program: False)
    monkeypatch.setattr(starter.subprocess, "run", forbidden)
    monkeypatch.setattr(starter.os, "execv", lambda program, words: started_words.append(words))
    monkeypatch.setattr(starter, "marked", lambda place: starter.pinned("requirements.txt")[1])
    started_words = start.words = []
    return start


@pytest.mark.parametrize("words, environment", [(["pytest", "-q", "--no-install"], ""), (["pytest"], "1")], ids=["option", "environment"])
def test_nothing_is_installed_against_the_users_will(started, capsys, monkeypatch, words, environment):
    monkeypatch.setenv("KDRIFT_NO_INSTALL", environment)
    assert started(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "these packages are missing: " in error


def test_a_virtual_environment_is_not_made_against_the_users_will(started, starter, capsys, monkeypatch):
    monkeypatch.setattr(starter, "marked", lambda place: None)
    assert started("merge", "a.json", "--no-install") == 2
    assert ".venv is missing" in capsys.readouterr().err


@pytest.mark.parametrize("place, why", [("/proc/kdrift", "No such file or directory"), ("/dev/full/kdrift", "Not a directory")])
def test_a_virtual_environment_that_cannot_be_written_is_one_line(started, starter, capsys, monkeypatch, place, why):
    monkeypatch.setattr(starter, "installed", lambda program: True)
    monkeypatch.setattr(starter, "marked", lambda place: None)
    monkeypatch.setattr(starter, "place_for", lambda name, mark: f"{place}/{name}")
    assert started("merge", "a.json") == 2
    error = capsys.readouterr().err
    assert error.startswith("kdrift: the virtual environment cannot be made: ") and error.endswith(f": {why}\n") and error.count("\n") == 1


def test_a_virtual_environment_that_has_no_room_is_a_full_disk(started, starter, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(starter, "installed", lambda program: True)
    monkeypatch.setattr(starter, "marked", lambda place: None)
    monkeypatch.setattr(starter, "place_for", lambda name, mark: str(tmp_path / name))
    monkeypatch.setattr(starter.subprocess, "run", lambda *_words, **_options: SimpleNamespace(
        returncode=1, stdout="more\nERROR: [Errno 28] No space left on device\n"))
    assert started("merge", "a.json") == 3
    assert capsys.readouterr().err.splitlines()[-1].endswith("No space left on device")


@pytest.mark.parametrize("command", [add.__name__ for add in commandline.COMMANDS])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_install_nothing(started, starter, monkeypatch, command, option):
    monkeypatch.setattr(starter, "marked", lambda place: None)
    monkeypatch.setattr("cli.parser.version", lambda: "kdrift")
    with pytest.raises(SystemExit) as ended:
        started(command, option)
    assert not ended.value.code
    assert started.words == []


def test_wrong_usage_installs_nothing(started):
    with pytest.raises(SystemExit) as ended:
        started("merge", "--nonsense")
    assert ended.value.code == 2


@pytest.mark.parametrize("command", ["merge", "kernels", "known", "chance", "behaviour"])
def test_a_command_that_runs_no_test_needs_none_of_the_tests_tools(started, command):
    words = [command, "--no-install"] if command in ("kernels", "known") else [command, "a.json", "--no-install"]
    started(*words)
    assert [words[3:] for words in started.words] == [words]


@pytest.mark.parametrize("option", ["--markers", "--collect-only", "--fixtures"])
def test_what_pytest_only_shows_needs_none_of_the_tests_tools(started, option):
    started("pytest", option, "--no-install")
    assert [words[3:] for words in started.words] == [["pytest", option, "--no-install"]]


def test_known_runs_machines_where_it_checks(started, capsys):
    assert started("known", "--check", "--no-install") == 2
    assert "qemu-system-x86" in capsys.readouterr().err


@pytest.mark.parametrize("options, said", [([], False), (["--git", "linux"], True), (["--git", "linux", "--build", "make"], False)])
def test_bisect_names_the_compilers_packages_that_are_missing(started, capsys, options, said):
    assert started("bisect", "TEST", "GOOD", "BAD", *options, "--no-install") == 2
    complained = capsys.readouterr().err
    assert complained.count("\n") == 1 and ({"gcc", "flex", "libelf-dev"} <= set(complained.split())) == said


def test_all_that_commands_need_can_be_installed(starter):
    assert set(starter.PROGRAMS) == {commandline.MACHINES, commandline.COMMAND, commandline.CODE, commandline.SELFTEST, commandline.VAGRANT,
                                     commandline.GIT, commandline.BUILD, commandline.SOURCE}
