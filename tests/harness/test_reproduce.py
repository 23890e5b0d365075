"""A test as one file: what is in it, what it needs, and how it ends."""

import subprocess
import sys
import textwrap
import zipfile

import pytest
import vermin

from cli import export
from cli.__main__ import main
from reproduce.check import check
from reproduce.collect import Manifest
from reproduce.describe import describe_elsewhere
from reproduce.pack import pack, write
from reproduce.transform import TooNew, for_old_python
from tests.harness.sessions import CASES

FILE = f"{CASES}/test_exported.py"
# What inside/repro/compat.py puts in place, and what scapy uses only where it is there.
SHIMMED = ("functools.cache", "os.pidfd_open", "signal.pidfd_send_signal", "os.waitstatus_to_exitcode", "socket.send_fds",
           "bisect.bisect(key)", "typing.Self", "enum.StrEnum")


@pytest.fixture(scope="module")
def suite():
    """Every test of the suite, described."""
    return list(describe_elsewhere([]).values())


@pytest.fixture(scope="module")
def cases():
    """The cases of test_exported.py, by name."""
    return {test.partition("::")[2]: case for test, case in describe_elsewhere([FILE]).items()}


@pytest.fixture
def run(tmp_path, cases):
    """run(name of a case): its status and output, alone in a directory, with nothing of the project within reach."""
    def start(name, *words, stdin=""):
        write(tmp_path / "repro.pyz", [cases[name]])
        done = subprocess.run([sys.executable, "-I", "repro.pyz", *words], cwd=tmp_path, capture_output=True, text=True,
                              env={"PATH": "/usr/bin:/bin"}, input=stdin)
        assert done.stderr == ""
        return done.returncode, done.stdout
    return start


def test_every_test_of_the_suite_resolves_without_pytest(suite):
    assert len(suite) > 1000
    assert check(suite) == {}


@pytest.mark.parametrize("unread, unresolved, status", [({}, {}, 0), ({"a": "no function"}, {}, 1), ({}, {"b": "no module"}, 1)], ids=str)
def test_export_of_all_names_the_tests_that_cannot_be_and_counts_them(monkeypatch, capsys, unread, unresolved, status):
    cases = [Manifest(name, "m", "f", "") for name in "bcd"]
    monkeypatch.setattr(export, "collect", lambda words: [])
    monkeypatch.setattr(export, "describe_all", lambda items: (cases, unread))
    monkeypatch.setattr(export, "check", lambda checked: unresolved if checked == cases else {})

    assert main(["export", "--all"]) == status
    failed = unread | unresolved
    total = len(cases) + len(unread)
    assert capsys.readouterr().out == "".join(f"{test}: {why}\n" for test, why in failed.items()) + (
        f"{total - len(failed)} of {total} tests can be exported\n")


def test_sources_need_no_more_than_python_3_8(suite, tmp_path):
    one_of_each = {case.module: case for case in suite}.values()
    with zipfile.ZipFile(_written(tmp_path / "all.pyz", pack(list(one_of_each)))) as archive:
        archive.extractall(tmp_path)
    config = vermin.Config()
    for name in SHIMMED:
        config.add_exclusion(name)
    processed = vermin.Processor().process([str(path) for path in tmp_path.rglob("*.py")], config)
    assert processed[0][1] <= (3, 8)


def _written(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["test_promise_holds[ipv4-1-1]", "test_promise_holds[ipv6-more]", "test_time_is_over[ipv4]"])
def test_promise_that_holds_is_not_reproduced(run, name):
    status, output = run(name)
    assert (status, output.splitlines()[-1]) == (0, "NOT REPRODUCED")


def test_broken_promise_is_reproduced_with_what_was_expected_and_seen(run):
    status, output = run("test_promise_is_broken[ipv4]")
    assert (status, output.splitlines()[-1]) == (1, "REPRODUCED")
    words = " ".join(output.split())
    for text in ("promise: One byte is two bytes.", "assert sent == 2 expected: == 2 seen: 1",
                 "client: connect to 192.0.2.2:", "client: send 1 bytes",
                 "veth, mtu 1500: client (192.0.2.1/24", "[PA] seq 1 ack 1 len 1"):
        assert text in words


@pytest.mark.parametrize("words, device", [(["--shell"], "to-server"), (["--shell-on", "server"], "to-client")])
def test_shell_is_on_a_host_of_the_failed_case(run, words, device):
    status, output = run("test_promise_is_broken[ipv4]", *words, stdin="ip -br link\n")
    assert status == 1
    assert any(line.startswith(f"{device}@") for line in output.splitlines())


def test_error_of_the_kernel_is_reproduced(run):
    status, output = run("test_kernel_refuses[ipv6]")
    assert (status, output.splitlines()[-1]) == (1, "REPRODUCED")
    assert "client: connect: ECONNREFUSED" in output


def test_what_does_not_come_in_time_is_reproduced(run):
    status, output = run("test_nothing_comes[ipv4]")
    assert (status, output.splitlines()[-1]) == (1, "REPRODUCED")


@pytest.mark.parametrize("name, why", [
    ("test_machine_lacks_something", "the kernel has no flux capacitor"),
    ("test_case_has_a_mistake", "the case itself failed: TypeError: "),
    ("test_machine_may_not", "the case itself failed: PermissionError: ")])
def test_what_says_nothing_about_the_promise_cannot_run(run, name, why):
    status, output = run(name)
    assert status == 2
    assert output.splitlines()[-1].startswith(f"CANNOT RUN: {why}")


def test_file_that_cannot_even_start_is_no_reproduction(tmp_path):
    """Status 1 is Python's own for an exception; it must not be taken for REPRODUCED."""
    write(tmp_path / "repro.pyz", [])
    done = subprocess.run([sys.executable, "-I", tmp_path / "repro.pyz"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("CANNOT RUN: ")


def test_same_case_gives_the_same_file(cases):
    case = cases["test_promise_holds[ipv4-1-1]"]
    assert pack([case]) == pack([case])


def test_fixture_that_only_pytest_has_is_the_reason(cases):
    assert cases["test_uses_what_only_pytest_has"] == "uses pytest's own fixture capsys"


def test_old_python_gets_calls_and_every_line_keeps_its_number():
    source = textwrap.dedent('''\
        """A module."""
        TABLE = {"a": 1}
        Pair = tuple[int, int]


        def words(text: str | None) -> list[str]:
            try:
                return [text.removeprefix("x"), TABLE | {"b": 2}]
            except TimeoutError:
                return []
    ''')
    old = for_old_python(source, "a.py")
    assert len(old.splitlines()) == len(source.splitlines())
    assert 'return [removeprefix(text, "x"), union(TABLE, {"b": 2})]' in old
    assert "except TIMEOUT:" in old and "Pair = tuple\n" in old
    assert old.splitlines()[0] == ('"""A module."""; from __future__ import annotations; '
                                   'from repro.compat import TIMEOUT, removeprefix, union')


def test_source_with_newer_syntax_says_where():
    with pytest.raises(TooNew, match="a.py, line 2: .*Python 3.8"):
        for_old_python("match 1:\n    case 1: pass\n", "a.py")
