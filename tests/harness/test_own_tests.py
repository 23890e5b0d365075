"""Tests of a user's own, outside the project: with their own conftest.py, the project's fixtures, and ids that tell them apart."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from cli.__main__ import main
from cli.run import found, is_test
from common.project import PROJECT
from kernels.cache import Cache
from tests.harness.sessions import KERNEL
from vm import own
from vm.payload import pack_sources

CONFTEST = """\
import pytest

@pytest.fixture
def mine():
    return {mine}
"""
TEST = """\
import pytest

from fixtures.topologies import LAN
from netns import tcp_pair

pytestmark = pytest.mark.topology(LAN)


def test_own(net, family, mine):
    client, server = net.nodes("client", "server")
    tcp_pair(client, server, family)
    assert mine == {mine}
"""


def write(directory, mine, name="test_own.py"):
    """A test with its own conftest.py, whose fixture `mine` has this value."""
    directory.mkdir(parents=True)
    (directory / "conftest.py").write_text(CONFTEST.format(mine=mine))
    (directory / name).write_text(TEST.format(mine=mine))
    return directory / name


@pytest.fixture
def outcomes(tmp_path):
    """outcomes(*words, where): what `./kdrift pytest *words` reports of each test, started in this directory."""
    def run(*words, where=tmp_path):
        done = subprocess.run([PROJECT / "kdrift", "pytest", "-q", f"--report={tmp_path}/report", "--with-paths", *words], cwd=where,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        [kernel] = json.loads((tmp_path / "report/results.json").read_text())["kernels"]
        return {test["id"]: test["outcome"] for test in kernel["tests"]}

    return run


def passed(*files, name="test_own"):
    return {f"{file}::{name}[{family}]": "passed" for file in files for family in ("ipv4", "ipv6")}


@pytest.mark.parametrize("words, where", [
    (["my/test_own.py"], "."), (["test_own.py"], "my"), (["."], "my"), (["my", "-k", "own"], "."), (["../my"], "my"),
    (["my/test_own.py::test_own"], "."), (["my", "-n", "2"], "."),
], ids=str)
def test_an_own_test_is_named_from_where_the_user_stands(outcomes, tmp_path, words, where):
    file = write(tmp_path / "my", mine=7)
    assert outcomes(*words, where=tmp_path / where) == passed(file)


def test_an_own_test_is_found_again_in_a_shared_report_which_has_no_path(tmp_path):
    write(tmp_path / "my", mine=7), write(tmp_path / "tests", mine=7)
    words = [PROJECT / "kdrift", "pytest", "-q", "my", "tests", "-k", "ipv4"]
    for number, more in enumerate([[], ["--validate", f"--baseline={tmp_path}/0/results.json"]]):
        done = subprocess.run([*words, f"--report={tmp_path}/{number}", *more], cwd=tmp_path, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        [kernel] = json.loads((tmp_path / f"{number}/results.json").read_text())["kernels"]
        assert [test["id"] for test in kernel["tests"]] == [f"own/{name}/test_own.py::test_own[ipv4]" for name in ("my", "tests")]
        assert not [path for path in (tmp_path / f"{number}").iterdir() if str(tmp_path) in path.read_text()]
    assert "no regression, 2 tests: 2 same" in done.stdout


@pytest.mark.parametrize("paths, names", [
    (["/home/me/my"], ["own/my"]), (["/home/me/a/my", "/home/me/b/my"], ["own/a/my", "own/b/my"]),
    (["/a/b/my", "/my", "/x/b/my"], ["own/a/b/my", "own/my", "own/x/b/my"]), ([], [])])
def test_directories_of_own_tests_have_the_shortest_names_that_tell_them_apart(paths, names):
    assert list(own.shared_names([Path(path) for path in paths]).values()) == names


def test_one_case_of_an_own_test_is_chosen_by_its_id(outcomes, tmp_path):
    file = write(tmp_path / "my", mine=7)
    assert outcomes(f"{file}::test_own[ipv4]") == {f"{file}::test_own[ipv4]": "passed"}


def test_each_directory_has_its_own_conftest_and_equal_names_do_not_clash(outcomes, tmp_path):
    """test_advmss.py is a name of the project's too, which keeps its id."""
    files = [write(tmp_path / "one", 1), write(tmp_path / "two", 2), write(tmp_path / "two/three", 3, "test_advmss.py")]
    seen = outcomes("one", "two", "tests/tcp/test_advmss.py")
    assert seen.items() >= passed(*files).items()
    assert len(seen) == 8
    assert sum(name.startswith("tests/tcp/test_advmss.py::") for name in seen) == 2


def test_an_own_fixture_replaces_the_projects_in_its_directory_alone(outcomes, tmp_path):
    (tmp_path / "my").mkdir()
    (tmp_path / "my/conftest.py").write_text("import pytest\n\n@pytest.fixture\ndef family():\n    return 'mine'\n")
    (tmp_path / "my/test_family.py").write_text("def test_family(family):\n    assert family == 'mine'\n")
    seen = outcomes("my", "tests/tcp/test_advmss.py")
    assert seen[f"{tmp_path}/my/test_family.py::test_family"] == "passed"
    assert set(seen.values()) == {"passed"} and len(seen) == 3


def test_a_package_of_an_own_name_is_imported_whole(outcomes, tmp_path):
    """Even if it is called `tests`, as the project's."""
    file = write(tmp_path / "tests", mine=7)
    (tmp_path / "tests/__init__.py").touch()
    (tmp_path / "tests/values.py").write_text("SEVEN = 7\n")
    file.write_text("from .values import SEVEN\n\n\ndef test_own(mine):\n    assert mine == SEVEN\n")
    assert outcomes(str(file)) == {f"{file}::test_own": "passed"}


@pytest.mark.parametrize("words, complaint", [
    (["my/test_none.py"], "{here}/my/test_none.py: No such file or directory"),
    (["/none/test_none.py::test_x", "--kernel", KERNEL], "/none/test_none.py: No such file or directory"),
    (["my/test_own.py::test_ow[ipv4]", "--kernel", KERNEL], "{here}/my/test_own.py::test_ow[ipv4]: the file has no test_ow"),
    (["6.12"], "{here}/6.12: No such file or directory; a kernel is named by --kernel"),
    (["my", "--ssh", "nobody"], "{here}/my: tests outside of kdrift run on this machine's kernel and with --kernel, "
                                "not with --ssh and --vagrant"),
], ids=str)
def test_what_cannot_run_is_refused_in_one_line(tmp_path, words, complaint):
    write(tmp_path / "my", mine=7)
    done = subprocess.run([PROJECT / "kdrift", "pytest", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.split("\n") == ["ERROR: " + complaint.format(here=tmp_path), "", ""]


def test_an_own_test_has_a_bug_report_without_a_case_and_says_why(tmp_path):
    file = write(tmp_path / "my", mine=7)
    file.write_text(file.read_text().replace("mine == 7", "mine == 8"))
    words = ["pytest", f"{file}::test_own[ipv4]", "--bug-report", "bugs"]
    done = subprocess.run([PROJECT / "kdrift", *words], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no standalone case: a test outside of kdrift cannot be exported\n" in done.stdout
    assert len(list((tmp_path / "bugs").glob("*/report.md"))) == 1


def test_an_own_test_is_not_exported(tmp_path, capsys):
    file = write(tmp_path / "my", mine=7)
    assert main(["export", str(file)]) == 2
    assert capsys.readouterr().err == f"kdrift: {file}: a test outside of kdrift cannot be exported\n"


@pytest.mark.parametrize("word, test", [
    ("my", True), ("my/test_own.py", True), ("none/test_none.py", True), ("none/none.py::test_x", True), ("tests/tcp", True),
    ("tests/tcp::x", True), ("6.12", False), ("linux", False), ("bzImage", False), ("none", False), ("empty", False), (".", False),
])
def test_a_test_is_told_from_a_kernel(tmp_path, monkeypatch, word, test):
    """linux is a tree that has tests, of its own and for another pytest."""
    write(tmp_path / "my/below", mine=7)
    write(tmp_path / "linux/tools", mine=7)
    (tmp_path / "linux/arch").mkdir()
    (tmp_path / "arch").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bzImage").touch()
    assert is_test(word, tmp_path) == test


def test_a_path_is_looked_for_where_the_user_stands_and_then_in_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    assert found("tests/tcp", tmp_path) == "tests/tcp"
    assert found(f"{PROJECT}/tests/tcp::x", tmp_path) == "tests/tcp::x"
    (tmp_path / "tests/tcp").mkdir(parents=True)
    assert found("tests/tcp", tmp_path) == f"{tmp_path}/tests/tcp"
    (tmp_path / "link").symlink_to(PROJECT / "tests")
    assert found("link/tcp", tmp_path) == "tests/tcp"


def test_a_machine_is_sent_the_directory_and_what_pytest_reads_above_it(tmp_path):
    file = write(tmp_path / "top/my/below", mine=7)
    (tmp_path / "top/conftest.py").touch()
    for name in ("top/my/other.py", "top/my/data.bin", "top/beside.py", "top/my/__init__.py", "top/my/.git/config",
                 "top/my/__pycache__/other.pyc", "top/my/below/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with Cache() as cache, tarfile.open(fileobj=io.BytesIO(pack_sources(cache, own.own_directories([f"{file}::test_own"])))) as sources:
        names = [f"/{name}" for name in sources.getnames()]
    sent = {str(Path(name).relative_to(tmp_path)) for name in names if Path(name).is_relative_to(tmp_path)}
    assert sent == {"top/conftest.py", "top/my/__init__.py", "top/my/other.py", "top/my/data.bin", "top/my/below/__init__.py",
                    "top/my/below/conftest.py", "top/my/below/test_own.py"}
    assert f"{PROJECT}/conftest.py" in names


def test_a_directory_that_is_no_directory_of_tests_is_not_sent(tmp_path, monkeypatch):
    write(tmp_path / "home", mine=7)
    with (tmp_path / "home/film").open("wb") as film:
        film.truncate(own.LARGEST + 1)
    with pytest.raises(own.TooMuch, match=r"^/.*/home has more than \d+ files or 16 MB"):
        own.own_files([tmp_path / "home"])


def test_an_own_test_runs_in_machines_and_is_compared(tmp_path):
    file = write(tmp_path / "my", mine=7)
    words = ["validate", f"{KERNEL}=old", f"{KERNEL}=new", "test_own.py", "--report", "../report", "-q"]
    done = subprocess.run([PROJECT / "kdrift", *words], cwd=tmp_path / "my", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    results = json.loads((tmp_path / "report/results.json").read_text())
    expected = passed(f"own/my/{file.name}")
    assert [{test["id"]: test["outcome"] for test in kernel["tests"]} for kernel in results["kernels"]] == [expected] * 2
    assert "no regression, 2 tests: 2 same" in done.stdout
