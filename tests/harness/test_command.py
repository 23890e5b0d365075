"""What ./kdrift makes of its command line."""

import subprocess

import pytest

from cli import run
from cli.__main__ import main
from common.project import PROJECT
from session.view import guest_arguments


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The current directory: a built kernel tree, and a directory with an image."""
    (tmp_path / "arch/x86/boot").mkdir(parents=True)
    (tmp_path / "arch/x86/boot/bzImage").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old/bzImage").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kernel, absolute", [
    (".", "{here}"),
    ("old/bzImage,modules=old=before", "{here}/old/bzImage,modules={here}/old=before"),
    ("old/bzImage,modules=old", "{here}/old/bzImage,modules={here}/old"),
    ("old/bzImage=before", "{here}/old/bzImage=before"),
    ("6.12", "6.12"),
    ("6.12=mine", "6.12=mine"),
    ("nothing/bzImage", "nothing/bzImage"),
])
def test_a_kernels_path_is_relative_to_where_the_user_stands(elsewhere, kernel, absolute):
    assert run.absolute(kernel) == absolute.format(here=elsewhere)


@pytest.fixture
def settled(elsewhere, monkeypatch):
    """What `./kdrift COMMAND WORDS...` makes of its words, typed elsewhere: pytest's configuration before the session."""
    found = []

    class InsteadOfASession:
        @pytest.hookimpl
        def pytest_cmdline_main(self, config):
            found.append(config)
            return 0

    def settle(command, *words):
        monkeypatch.chdir(elsewhere)
        main([command, *words])
        return found[-1]

    start = pytest.main
    monkeypatch.setattr(run.pytest, "main", lambda words, plugins: start(words, plugins=[*plugins, InsteadOfASession()]))
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    return settle


def for_a_guest(config):
    """The words that a guest's pytest is started with, without where its configuration is and where reports go."""
    words = [word for word in guest_arguments(config.invocation_params.args) if not word.startswith("--report")]
    return words[words.index("-c") + 2:]


@pytest.mark.parametrize("words", [
    ["6.1", "6.12", "--report", "out", "tests/tcp"], ["--report", "out", "6.1", "6.12", "tests/tcp"],
    ["tests/tcp", "6.1", "--report=out", "6.12"], ["--report", "out", "--kernel", "6.1", "tests/tcp", "--kernel=6.12"],
], ids=" ".join)
def test_validates_words_are_understood_in_any_order(settled, words):
    config = settled("validate", *words)
    assert (config.option.kernels, config.option.validate) == (["6.1", "6.12"], True)
    assert for_a_guest(config) == ["tests/tcp"]


def test_validate_without_tests_runs_all_and_without_kernels_a_first_pair(settled, elsewhere):
    config = settled("validate", "old/bzImage", "6.12")
    assert (config.option.kernels, for_a_guest(config)) == ([f"{elsewhere}/old/bzImage", "6.12"], [])
    config = settled("validate")
    assert (config.option.kernels, for_a_guest(config)) == (["6.1", "6.12"], ["-k", "keepalive"])
    assert for_a_guest(settled("validate", "-k", "pmtu")) == ["-k", "pmtu"]


def test_a_kernel_is_told_from_an_options_value_that_is_the_same_word(settled):
    config = settled("validate", "-k", "6.12", "6.1", "6.12", "-m", "6.1")
    assert config.option.kernels == ["6.1", "6.12"]
    assert for_a_guest(config) == ["-k", "6.12", "-m", "6.1"]


@pytest.mark.parametrize("option", ["--report", "--baseline", "--bug-report", "--ssh-config"])
def test_a_path_is_relative_to_where_the_user_stands(settled, elsewhere, option):
    config = settled("pytest", option, "a b/c,d", "-k", "keepalive")
    assert getattr(config.option, option[2:].replace("-", "_")) == f"{elsewhere}/a b/c,d"


@pytest.mark.parametrize("words", [["6.12"], ["--baseline", "a.json"]], ids=" ".join)
def test_validate_with_nothing_to_compare_is_refused(capfd, words):
    assert main(["validate", *words]) == 2
    assert run.NOTHING_TO_COMPARE in capfd.readouterr().err


def test_a_report_goes_to_the_users_directory_and_a_symlink_starts_kdrift(tmp_path):
    (tmp_path / "kdrift").symlink_to(PROJECT / "kdrift")

    done = subprocess.run([tmp_path / "kdrift", "pytest", "--report", "out", "-q", "tests/tcp/test_counters.py", "-k",
                           "test_close_wait_connection_is_counted"], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out/results.json").is_file()


@pytest.mark.parametrize("command", ["pytest", "validate"])
@pytest.mark.parametrize("option", ["--help", "--version", "--markers", "--fixtures", "--collect-only"])
def test_what_only_shows_something_needs_no_kernel(command, option):
    kernels = ["--kernel", "no-kernel", "--kernel", "none-either"]
    done = subprocess.run([PROJECT / "kdrift", command, *kernels, option, "tests/ping"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
