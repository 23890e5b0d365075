"""`./kdrift run`: what goes into a machine with a command, what its output and its end mean, and a machine that runs some."""

import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from cli import command as front, commandline
from command.files import Account, Luggage, account, needed_libraries, read_dynamic, working_directory
from command.frames import FrameReader
from command.kselftest import failures, installed_tree, tasks_of, words_of
from command.lines import read_lines
from command.results import results_of, run_results, status_of_runs
from command.session import CommandRun, Task
from common.errors import SpecError
from common.project import PROJECT
from kernels.extract import Kernel
from session.runs import KernelRun
from session.view import guest_arguments
from vm.command import HEAD, OUTPUT, static_nodes
from vm.job import Events
from vm.machine import Machine
from vm.state import kernel_parameters

ROOT = Account("root", 0, 0, "/root")
NESTED = """\
TAP version 13
1..2
# selftests: net: udpgro.sh
# TAP version 13
# 1..2
# ok 1 ipv4
# not ok 2 ipv6 - with options
not ok 1 selftests: net: udpgro.sh # exit=1
ok 2 - selftests: net: other.sh # SKIP no such device
"""
KTAP = """\
KTAP version 1
1..1
  KTAP version 1
  1..2
  ok 1 first
  not ok 2 second # XFAIL slow machine
ok 1 suite
not ok 2 # TIMEOUT 45 seconds
"""
SCRIPT = """\
Single path route test
    TEST: Route deleted on down                                         [ OK ]
    \x1b[1mTEST: Route deleted on down                                         [FAIL]\x1b[0m
TEST: vxlan4: PMTU exceptions                                       [SKIP]
# kdrift-measure: rtt 12.5 ms 0.5
# kdrift-measure: lost 3 packets
ok, that was all
okay 3
"""


def outcomes(text):
    return {name: test.outcome for name, test in read_lines(text.splitlines()).tests.items()}


def test_results_in_tap_are_named_by_the_tests_around_them():
    assert outcomes(NESTED) == {"selftests: net: udpgro.sh / ipv4": "passed", "selftests: net: udpgro.sh / ipv6 - with options": "failed",
                                "selftests: net: other.sh": "skipped"}
    assert read_lines(NESTED.splitlines()).tests["selftests: net: other.sh"].message == "no such device"


def test_an_expected_failure_in_ktap_is_none_and_a_timeout_is_one():
    assert outcomes(KTAP) == {"suite / first": "passed", "suite / second": "passed", "2": "failed"}


def test_lines_of_networking_scripts_are_results_and_a_repeated_name_gets_a_number():
    assert outcomes(SCRIPT) == {"Route deleted on down": "passed", "Route deleted on down (2)": "failed",
                                "vxlan4: PMTU exceptions": "skipped"}


def test_a_command_may_measure():
    assert read_lines(SCRIPT.splitlines()).measurements == [
        {"name": "rtt", "value": 12.5, "unit": "ms", "tolerance": 0.5},
        {"name": "lost", "value": 3.0, "unit": "packets", "tolerance": None}]
    assert read_lines(["# kdrift-measure: a e b"]).measurements == []


def test_frames_are_the_same_however_they_are_cut():
    stream = b"".join(HEAD.pack(kind, len(data)) + data for kind, data in ((b"O", b"abc"), (b"E", b""), (b"O", b"d" * 70000)))
    whole = list(FrameReader().feed(stream))
    reader = FrameReader()
    assert [frame for at in range(0, len(stream), 7) for frame in reader.feed(stream[at:at + 7])] == whole
    assert [(kind, len(data)) for kind, data in whole] == [(b"O", 3), (b"E", 0), (b"O", 70000)]


def finished(tmp_path, output="", status=0, end=None, log=(), timeout=0.0, error=None):
    """A command that has run on a kernel."""
    run = CommandRun(KernelRun("0", "6.12", "6.12", error=error), Task("t.sh", ("t.sh",), "/", tmp_path, timeout), "",
                     Events(tmp_path / "events"), tmp_path / "kept")
    run.output[OUTPUT] = output.encode()
    run.log = list(log)
    if end:
        run.events.add(**end)
    else:
        run.outcome = {"status": status, "seconds": 2.0, "idle": 1.0}
    return run


def test_lines_of_several_kernels_begin_with_the_kernels_name(tmp_path, capfdbinary):
    run = finished(tmp_path)
    run.prefix = "6.12  "
    run.show(OUTPUT, b"first\nsec")
    assert capfdbinary.readouterr().out == b"6.12  first\n"
    run.show(OUTPUT, b"ond\nlast")
    run.finish()
    said = capfdbinary.readouterr()
    assert said.out == b"6.12  second\n6.12  last\n"
    assert said.err.startswith(b"kdrift: 6.12  2.000 s of the guest's time")


@pytest.mark.parametrize("idle, busy", [(0.0, True), (1.9, False)])
def test_a_guest_that_was_busy_all_the_time_is_told(tmp_path, idle, busy):
    run = finished(tmp_path)
    run.outcome["idle"] = idle
    assert ("there was nothing to skip" in run.verdict()[-1]) == busy


def test_files_that_a_machine_has_no_room_for_are_refused():
    front.check_room(200 << 20, 512)
    with pytest.raises(SpecError, match="--memory"):
        front.check_room(300 << 20, 512)


def test_what_the_user_changes_of_a_machine_reaches_qemu_and_the_kernel(tmp_path):
    machine = Machine(Path("bzImage"), Path("initrd"), [], tmp_path, "virtual", "tcg", memory_mb=1024)
    assert "-m 1024 " in " ".join(machine.arguments())
    kernel = Kernel("6.12", "6.12", None, None, Path("bzImage"), None, "key")
    parameters = kernel_parameters(kernel, append=["loglevel=7"])
    assert parameters.index("loglevel=7") < parameters.index("--")


def test_a_guest_is_not_told_how_its_machine_was_changed():
    words = ["-x", "--append", "quiet", "--memory=1024", "--console", "/here"]
    assert guest_arguments(words) == ("-x", "--console=there")


@pytest.mark.parametrize("what, status", [
    ({}, 0), ({"status": 7}, 7), ({"status": 124}, 124), ({"end": {"end": "crashed", "why": "Kernel panic"}}, 1),
    ({"end": {"end": "lost", "why": "hang"}}, 3), ({"error": "no such package"}, 125), ({"log": ["WARNING: at net/core/dev.c:1"]}, 1),
], ids=str)
def test_the_status_is_the_commands_and_of_several_the_worst(tmp_path, what, status):
    assert status_of_runs([finished(tmp_path, **what)]) == status
    assert status_of_runs([finished(tmp_path / "none"), finished(tmp_path, **what)]) == status


@pytest.mark.parametrize("what, found", [
    ({}, {"command": "passed"}), ({"status": 3}, {"command": "failed"}),
    ({"output": "ok 1 a\n"}, {"a": "passed"}), ({"output": "ok 1 a\n", "status": 1}, {"a": "passed", "command": "failed"}),
    ({"output": "not ok 1 a\n", "status": 1}, {"a": "failed"}),
    ({"output": "not ok 1 a\n", "end": {"end": "crashed", "why": "Oops"}}, {"a": "failed", "command": "crashed"}),
    ({"output": "ok 1 a\n", "log": ["WARNING: x"]}, {"a": "passed", "command": "failed"}),
], ids=str)
def test_a_command_is_a_result_where_its_own_results_do_not_tell_how_it_ended(tmp_path, what, found):
    tests = run_results(finished(tmp_path, **what), selftests=False)
    assert {test.id: test.outcome for test in tests} == {f"t.sh::{name}": outcome for name, outcome in found.items()}


def test_a_selftest_that_exits_with_4_is_skipped(tmp_path):
    run = finished(tmp_path, status=4)
    assert [run_results(run, selftests)[0].outcome for selftests in (False, True)] == ["failed", "skipped"]


def test_a_kernel_that_could_not_be_had_has_no_results(tmp_path):
    run = finished(tmp_path, error="no such package")
    kernel = results_of(run.kernel, [run], 1)
    assert (kernel.error, kernel.tests) == ("no such package", [])


@pytest.fixture
def program(tmp_path):
    """A program with a library that no system has, which in turn needs the C library."""
    (tmp_path / "lib.c").write_text("int puts(const char *); int mine(void) { return puts(\"mine\"); }\n")
    (tmp_path / "main.c").write_text("int mine(void); int main(void) { return mine() < 0; }\n")
    (tmp_path / "own").mkdir()
    for words in (["-shared", "-fPIC", "-o", "own/libmine.so", "lib.c"],
                  ["-o", "main", "main.c", "-Lown", "-lmine", "-Wl,-rpath,$ORIGIN/own"]):
        done = subprocess.run(["cc", *words], cwd=tmp_path, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no C compiler: {done.stderr}")
    return tmp_path / "main"


def test_libraries_come_along_but_none_that_the_image_has(program):
    library = str(program.parent / "own/libmine.so")
    assert needed_libraries([str(program)], ["libc.so.6"]) == [library]
    assert any(path.endswith("/libc.so.6") for path in needed_libraries([str(program)], []))
    luggage = Luggage(["lib/x86_64-linux-gnu/libc.so.6"])
    luggage.add(program)
    assert luggage.files == [str(program), library]


def test_readelf_names_no_file_if_there_is_one():
    listing = " 0x01 (NEEDED)  Shared library: [liba.so]\n 0x1d (RUNPATH)  Library runpath: [$ORIGIN/x:/y]\n"
    assert read_dynamic(listing, ["/d/f"]) == [("liba.so", ["/d/x", "/y"])]
    assert read_dynamic(f"\nFile: /d/f\n{listing}\nFile: /e\n", ["/d/f", "/e"]) == [("liba.so", ["/d/x", "/y"])]


def packed(tmp_path, luggage, owner=ROOT, stdin=None):
    luggage.pack(tmp_path / "files.tar", owner, stdin)
    with tarfile.open(tmp_path / "files.tar") as tar:
        return {entry.name: entry for entry in tar}


def test_files_that_the_command_line_names_are_sent_with_their_interpreter(tmp_path):
    (tmp_path / "t.sh").write_text("#!/usr/bin/env readelf\n")
    (tmp_path / "t.sh").chmod(0o755)
    (tmp_path / "data").write_text("1")
    luggage = Luggage(["usr/bin/env"])
    luggage.add_command(["./t.sh", "data", "absent", "/etc/passwd", "echo 1; " * 40 + "cat /etc/passwd"], tmp_path)
    sent = packed(tmp_path, luggage)
    top = str(tmp_path).lstrip("/")
    assert {f"{top}/t.sh", f"{top}/data"} <= sent.keys()
    assert any(name.endswith("readelf") for name in sent)
    assert not any("passwd" in name or "absent" in name for name in sent)


def test_a_directory_is_sent_whole_and_belongs_to_the_user(tmp_path):
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("1")
    (tmp_path / "link").symlink_to("tree")
    luggage = Luggage([])
    luggage.add(tmp_path / "link")
    sent = packed(tmp_path, luggage, Account("me", 1234, 99, "/home/me"), b"input")
    top = str(tmp_path).lstrip("/")
    assert sent[f"{top}/link"].issym()
    assert (sent[f"{top}/tree/sub/file"].uid, sent[f"{top}/tree/sub/file"].gid) == (1234, 99)
    assert sent["run/kdrift-stdin"].size == 5


def test_a_package_brings_its_files_but_none_that_the_image_has(tmp_path):
    root = tmp_path / "root"
    for name in ("usr/bin/own", "usr/bin/env", "usr/share/doc/own/copyright"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("#!/bin/sh\n")
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text("Package: own\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: own\n")
    subprocess.run(["dpkg-deb", "-b", root, tmp_path / "own.deb"], check=True, capture_output=True)
    luggage = Luggage(["usr/bin/env"])
    luggage.add_package(tmp_path / "own.deb", tmp_path / "unpacked")
    assert packed(tmp_path, luggage, Account("me", 1234, 99, "/")).keys() == {"usr/bin/own"}
    with pytest.raises(SpecError, match="--package"):
        luggage.add_package(tmp_path / "absent.deb", tmp_path / "other")


@pytest.mark.parametrize("directory, here, begins", [(None, "/a", "/a"), ("/a", "/a/b", "/a/b"), ("/c", "/a", "/c")])
def test_the_command_begins_in_its_directory_or_deeper_where_the_user_is(directory, here, begins):
    assert working_directory(directory and Path(directory), Path(here)) == Path(begins)


@pytest.mark.parametrize("add", [lambda luggage: luggage.add(Path("/nonexistent")), lambda luggage: luggage.add(Path("/")),
                                 lambda luggage: luggage.add_tool("no-such-tool"), lambda luggage: account("no-such-user")])
def test_what_cannot_be_sent_is_refused_in_one_line(add):
    with pytest.raises(SpecError) as refused:
        add(Luggage([]))
    assert "\n" not in str(refused.value)


def test_static_nodes_are_those_of_the_modules():
    assert static_nodes("# Device nodes\ntun net/tun c10:200\nloop loop-control c10:237\n")[0][::2] == ("/dev/net/tun", 10)


def test_words_behind_the_dashes_are_the_commands():
    options = commandline.parse(["run", "--kernel", "6.1", "--timeout", "5", "--", "ls", "--kernel", "--", "-l"])
    assert (options.kernels, options.timeout, options.words) == (["6.1"], 5.0, ["ls", "--kernel", "--", "-l"])


@pytest.mark.parametrize("words, complaint", [
    (["--dir", "/nonexistent", "--", "ls"], "/nonexistent"), (["--env", "=1", "--", "ls"], "--env"),
    (["--user", "nobody-here", "--", "ls"], "--user"),
    (["--validate", "--", "ls"], "--validate"), (["--kernel", "no-kernel", "--", "ls"], "no-kernel"),
    (["--kernel", "6.1", "--kernel", "6.12"], "one kernel"), (["--fail-on", "nonsense", "--", "ls"], "--fail-on"),
], ids=" ".join)
def test_wrong_use_is_one_line_and_status_2(words, complaint, monkeypatch, capsys):
    monkeypatch.setattr(front, "terminal_missing", lambda: None)
    assert front.run(commandline.parse(["run", "--offline", *words])) == 2
    said = capsys.readouterr().err
    assert said.startswith("kdrift: ") and said.count("\n") == 1 and complaint in said


@pytest.fixture
def selftests(tmp_path):
    """An installed tree."""
    (tmp_path / "net/lib").mkdir(parents=True)
    (tmp_path / "kselftest-list.txt").write_text("net:icmp.sh\nnet:pmtu.sh\nnet/lib:csum.py\n")
    (tmp_path / "net/settings").write_text("timeout=3600\n")
    return tmp_path


def test_each_selftest_is_a_task_with_the_timeout_of_its_collection(selftests):
    tasks = tasks_of(selftests, ["net:pmtu.sh", "net/lib"], selftests / "tar", None)
    assert [(task.name, task.words, task.cwd, task.timeout) for task in tasks] == [
        ("net:pmtu.sh", ("./pmtu.sh",), str(selftests / "net"), 3600), ("net/lib:csum.py", ("./csum.py",), str(selftests / "net/lib"), 45)]
    assert [task.timeout for task in tasks_of(selftests, [], selftests / "tar", 5)] == [5, 5, 5]


@pytest.mark.parametrize("mode, text, runner, words", [
    (0o755, "#!/bin/sh\n", True, ("./t",)), (0o644, "0 socket()\n", True, ("./ksft_runner.sh", "./t")),
    (0o644, "#!/bin/bash -e\n", False, ("/bin/bash", "-e", "./t")), (0o644, "0 socket()\n", False, ("./t",)),
], ids=["program", "runner", "interpreter", "neither"])
def test_a_selftest_that_is_no_program_has_a_runner_or_an_interpreter(tmp_path, mode, text, runner, words):
    (tmp_path / "t").write_text(text)
    (tmp_path / "t").chmod(mode)
    if runner:
        (tmp_path / "ksft_runner.sh").write_text("#!/bin/sh\n")
        (tmp_path / "ksft_runner.sh").chmod(0o755)
    assert words_of(tmp_path, "t") == words


def test_a_selftest_that_is_not_listed_is_refused(selftests):
    with pytest.raises(SpecError, match="net:absent.sh"):
        tasks_of(selftests, ["net:absent.sh"], selftests / "tar", None)
    with pytest.raises(SpecError, match="neither installed selftests"):
        installed_tree(selftests / "net", [], selftests, print)


def test_what_could_not_be_built_is_said_once():
    output = ("tls.c:12:10: fatal error: openssl/ssl.h: No such file or directory\ntls.c:13:1: error: expected\n"
              "make[1]: *** [../lib.mk:147: /b/net/tls] Error 1\nmake[1]: *** [/b/net/other] Error 1\n")
    ignored = output.replace("*** ", "") + "make[1]: *** [Makefile:263: install] Error 4\n"
    assert failures(ignored) == failures(output) == ["not built: tls (openssl/ssl.h: No such file or directory)", "not built: other"]


def test_a_machine_runs_a_command_as_an_ordinary_system_would(tmp_path):
    """Two hours pass; what it reads, writes and leaves behind arrives, and its status."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/t.sh").write_text(
        "#!/bin/sh\ncat; pwd; date -u +%F; test -c /dev/net/tun && ping -c 1 localhost >/dev/null && echo lo\n"
        "echo wrong >&2; sleep 7200; echo kept > $KDRIFT_OUT/file; exit $STATUS\n")
    (tmp_path / "tree/t.sh").chmod(0o755)
    words = ["run", "--kernel", "6.12", "--dir", tmp_path / "tree", "--out", tmp_path / "out", "--env", "STATUS=7", "--", "./t.sh"]
    done = subprocess.run([PROJECT / "kdrift", *words], input="read\n", capture_output=True, text=True)
    assert done.stdout == f"read\n{tmp_path / 'tree'}\n2026-01-01\nlo\n", done.stderr
    assert "wrong\n" in done.stderr and "kdrift: 72" in done.stderr
    assert ((tmp_path / "out/file").read_text(), done.returncode) == ("kept\n", 7)


def test_a_command_that_hangs_or_kills_its_kernel_ends():
    def run(*words):
        return subprocess.run([PROJECT / "kdrift", "run", "--kernel", "6.12", *words], input="", capture_output=True, text=True)

    hung = run("--timeout", "60", "--", "sleep", "100000")
    assert (hung.returncode, "60 s of the guest's time" in hung.stderr) == (124, True)
    crashed = run("--", "sh", "-c", "echo first; sleep 1; echo c > /proc/sysrq-trigger")
    assert (crashed.returncode, crashed.stdout) == (1, "first\n")
    assert re.search(r"kdrift: crashed: .*Kernel panic - not syncing: sysrq triggered crash", crashed.stderr)
