"""Whatever a command is given, it says what is wrong in one line, names the file or option, and ends with status 2."""

import os
import subprocess
import sys

import pytest

from cli.__main__ import main
from common.project import PROJECT
from report.files import write_files
from report.results import KernelResult, TestResult

TEST = "tests/tcp/test_advmss.py::test_advmss_of_a_route_caps_the_mss_that_a_new_connection_announces[ipv6]"
BROKEN = {"empty": b"", "binary": os.urandom(3000), "another-shape": b'{"a": 1}', "list": b"[1]", "cut": b'["', "deep": b"[" * 100_000}


@pytest.fixture(params=[*BROKEN, "missing", "directory", "/proc/self/mem"])
def bad_file(request, tmp_path):
    path = tmp_path / request.param
    if request.param in BROKEN:
        path.write_bytes(BROKEN[request.param])
    elif request.param == "directory":
        path.mkdir()
    return path


@pytest.fixture(params=["file", "file/below", "/proc/kdrift", "/dev/full"])
def bad_directory(request, tmp_path):
    (tmp_path / "file").write_text("no directory")
    return tmp_path / request.param


@pytest.fixture(params=["directory", "missing/file", "/proc/kdrift"])
def bad_output(request, tmp_path):
    (tmp_path / "directory").mkdir()
    return tmp_path / request.param


@pytest.fixture
def results(tmp_path):
    """results.json of a run, with a measurement that ./kdrift behaviour takes."""
    measured = {"name": "keepalive.dead_after", "value": 1.0, "unit": "s", "tolerance": None}
    kernel = KernelResult("6.1", "6.1", release="6.1.0", version="6.1.1-1",
                          tests=[TestResult("tests/keepalive/test_a.py::test_a", "passed", measurements=[measured])])
    run = {"started": "2026-01-01T00:00:00+00:00", "duration_s": 1.0, "arguments": [], "python": "3", "exit_status": 0}
    (tmp_path / "good").mkdir()
    write_files(tmp_path / "good", run, [kernel], [])
    return tmp_path / "good/results.json"


@pytest.fixture
def refused(capsys):
    """refused(*words, naming): the command says no more than one line, in which these words stand."""
    def check(*words, naming):
        words = [str(word) for word in words]
        if words[0] in ("export", "bisect"):        # it runs pytest, which would find this pytest's modules
            done = subprocess.run([sys.executable, "-m", "cli", *words], capture_output=True, text=True,
                                  env={**os.environ, "PYTHONPATH": str(PROJECT)})
            status, said = done.returncode, done.stderr
        else:
            status, said = main(words), capsys.readouterr().err
        assert status == 2
        assert said.startswith("kdrift: ") and said.count("\n") == 1, said
        assert str(naming) in said

    return check


@pytest.mark.parametrize("words", [["merge"], ["chance"], ["behaviour"], ["known", "--record"]], ids=" ".join)
def test_a_file_that_is_no_results_file(refused, words, bad_file):
    refused(*words, bad_file, naming=bad_file)


def test_a_file_that_chance_did_not_make(refused, results, bad_file):
    refused("chance", "--add", results, results, "-o", bad_file, naming=bad_file.name)


@pytest.mark.parametrize("words", [["merge", "{results}"], ["known", "--check"], ["sensitivity", "tcp"], ["bisect", TEST, "6.1", "6.12"]],
                         ids=lambda words: words[0])
def test_a_directory_for_reports_that_cannot_be_made(refused, results, words, bad_directory):
    words = [word.format(results=results) for word in words]
    refused(*words, "--report", bad_directory, naming=f"--report {bad_directory}: ")


def test_a_directory_for_behaviour_that_cannot_be_made(refused, results, bad_directory):
    refused("behaviour", results, "-o", bad_directory, naming=f"--output {bad_directory}: ")


@pytest.mark.parametrize("words", [["chance", "{results}", "{results}"], ["export", TEST]], ids=["chance", "export"])
def test_an_output_that_cannot_be_written(refused, results, words, bad_output):
    words = [word.format(results=results) for word in words]
    refused(*words, "-o", bad_output, naming=f"--output {bad_output}: ")


@pytest.mark.parametrize("words", [["export", TEST, "-o", "{here}/a.pyz", "--kernel"], ["bench", "--kernel"], ["sensitivity", "--kernel"],
                                   ["suspects", "6.12.90-2"], ["bisect", TEST, "--report", "{here}/out", "6.12.90-2"]],
                         ids=lambda words: words[0])
@pytest.mark.parametrize("spec", ["banana", "{here}/bzImage", "{here}"])
def test_a_kernel_that_is_none(refused, tmp_path, monkeypatch, words, spec):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bzImage").write_bytes(b"no kernel")
    refused(*(word.format(here=tmp_path) for word in words), spec.format(here=tmp_path), naming=spec.format(here=tmp_path))


@pytest.mark.parametrize("words, naming", [
    (["export", "tests/none.py::test_x"], "tests/none.py: No such file or directory"),
    (["export", "tests/tcp/test_advmss.py::test_none"], "tests/tcp/test_advmss.py::test_none"),
    (["export", "tests/tcp/test_advmss.py"], "means 2 tests"), (["export", TEST, "--all"], "name a test, or --all"),
    (["export"], "name a test, or --all"), (["merge", "a", "--fail-on", "banana"], "--fail-on: unknown class 'banana'"),
    (["sensitivity", "banana"], "no family banana"), (["sensitivity", "--tests", "banana"], "no family banana"),
    (["sensitivity", "--every"], "--every: only with --tests"),
    (["sensitivity", "--tests", "--functions", "f"], "--functions: not with --tests"), (["bench", "--runs", "4"], "--runs 4"),
    (["bisect", "tests/none.py::test_x", "6.1", "6.12"], "tests/none.py: No such file or directory"),
    (["bisect", "tests/tcp/test_advmss.py::test_none", "6.1", "6.12"], "test_advmss.py::test_none: the file has no test_none"),
    (["bisect", "tests/tcp/test_advmss.py", "6.1", "6.12"], "means 2 tests: name one of them, such as tests/tcp/test_advmss.py::"),
    (["bisect", "6.1", "6.12"], "the following arguments are required: BAD"),
    (["bench", "--against", "/nonexistent/file"], "--against /nonexistent/file: No such file or directory"),
], ids=str)
def test_words_that_mean_nothing(refused, words, naming):
    refused(*words, naming=naming)


@pytest.mark.parametrize("words, status", [
    (["pytest", "{name}"], 2), (["pytest", "{name}::test_x"], 2), (["validate", "{name}", "6.12"], 2),
    (["run", "--dir", "{name}", "--", "true"], 2),
    (["run", "--kselftest", "{name}"], 2), (["suspects", "6.1", "6.12", "{name}"], 2), (["bisect", "{name}", "6.1", "6.12"], 2),
], ids=lambda words: words[0] if isinstance(words, list) else None)
@pytest.mark.parametrize("name", ["n" * 300, "d/" * 3000, "~nobody-has-this-name/x"], ids=["name", "path", "home"])
def test_a_name_that_no_file_can_have(words, status, name):
    done = subprocess.run([PROJECT / "kdrift", *(word.format(name=name) for word in words)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr + done.stdout and len((done.stderr + done.stdout).strip().splitlines()) == 1
    assert done.returncode == status


@pytest.mark.parametrize("option", ["--report", "--bug-report", "--console"])
def test_a_directory_of_a_session_that_cannot_be_made(bad_directory, option):
    done = subprocess.run([PROJECT / "kdrift", "pytest", "-k", "advmss", option, bad_directory], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ERROR: {option} {bad_directory}: ") and done.stderr.count("\n") == 2


@pytest.mark.parametrize("words", [["--baseline", "{file}"], ["--ssh-config", "{file}", "--ssh", "nobody"]], ids=lambda words: words[0])
def test_a_file_of_a_session_that_is_not_there(tmp_path, words):
    words = [word.format(file=tmp_path / "none") for word in words]
    done = subprocess.run([PROJECT / "kdrift", "pytest", "-k", "advmss", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"ERROR: {words[0]} {tmp_path}/none: No such file or directory\n\n"
