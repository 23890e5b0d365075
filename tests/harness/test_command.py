"""What ./kdrift makes of its command line."""

import subprocess

import pytest

from cli.run import from_here
from common.project import PROJECT


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The current directory: a built kernel tree, and a directory with an image."""
    (tmp_path / "arch/x86/boot").mkdir(parents=True)
    (tmp_path / "arch/x86/boot/bzImage").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old/bzImage").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("option, absolute", [
    ("--report=out", "--report={here}/out"),
    ("--baseline=a b/c,d.json", "--baseline={here}/a b/c,d.json"),
    ("--report=/out", "--report=/out"),
    ("--kernel=.", "--kernel={here}"),
    ("--kernel=old/bzImage,modules=old=before", "--kernel={here}/old/bzImage,modules={here}/old=before"),
    ("--kernel=old/bzImage,modules=old", "--kernel={here}/old/bzImage,modules={here}/old"),
    ("--kernel=old/bzImage=before", "--kernel={here}/old/bzImage=before"),
    ("--kernel=6.12", "--kernel=6.12"),
    ("--kernel=6.12=mine", "--kernel=6.12=mine"),
    ("--kernel=nothing/bzImage", "--kernel=nothing/bzImage"),
    ("-k=out", "-k=out"),
])
def test_paths_are_relative_to_where_the_user_stands(elsewhere, option, absolute):
    assert from_here(option) == absolute.format(here=elsewhere)


def test_a_report_goes_to_the_users_directory_and_a_symlink_starts_kdrift(tmp_path):
    (tmp_path / "kdrift").symlink_to(PROJECT / "kdrift")

    done = subprocess.run([tmp_path / "kdrift", "pytest", "--report", "out", "-q", "-k", "test_a_connection_in_close_wait_is_counted"],
                          cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out/results.json").is_file()
