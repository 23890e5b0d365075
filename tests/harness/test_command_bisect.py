"""`./kdrift run --bisect`: where a command's result changes, and listed issues, with a stand-in for the machines."""
import argparse

import pytest

from bisection.machines import Unusable
from cli import command as front, command_bisect, commandline
from cli.command_bisect import chosen, search
from command import results
from command.bugs import Bugs
from command.results import recognise
from command.search import CommandBench, CommandMachines
from command.session import CommandRun, Task
from common.errors import SpecError
from kernels.extract import Kernel
from kernels.versions import Available
from report.confirmation import certainty
from report.known import Affected, Issue
from report.results import KernelResult, TestResult
from reproduce.leaks import Private
from rerun.confirm import confirm
from session.runs import KernelRun
from vm.command import OUTPUT
from vm.job import Events

VERSIONS = [f"6.12.{number}" for number in range(9)]
TEST = "net:icmp.sh::second"


class Sessions:
    """Stand-in for command.session.CommandSession: `second` fails from one version on, the machine of another cannot be booted."""

    broken, unbootable = 5, 3

    def __init__(self, options, kernels, owner, environment, quiet=False):
        assert quiet
        self.kernel, = kernels

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def run(self, tasks):
        number = int(self.kernel.spec.rpartition(".")[2])
        task, = tasks
        run = CommandRun(self.kernel, task, "", Events(task.archive.parent / "events"), task.archive.parent / "kept", quiet=True)
        run.outcome = {"status": int(number >= self.broken), "seconds": 1.0, "idle": 1.0}
        run.output[OUTPUT] = b"ok 1 first\n%sok 2 second\n" % (b"not " * (number >= self.broken))
        if number == self.unbootable:
            self.kernel.error = "the kernel did not boot\nits last words"
        return [run]


@pytest.fixture
def machines(tmp_path, monkeypatch):
    monkeypatch.setattr("command.search.CommandSession", Sessions)
    (tmp_path / "files.tar").write_text("")
    options = argparse.Namespace(report=tmp_path, suite=tmp_path, slots=2, confirm=2, bisect="second")

    def resolve(spec, cache):
        return Kernel(spec, spec, None, spec, tmp_path, None, spec)
    return CommandMachines(options, Task("net:icmp.sh", ("./icmp.sh",), "/", tmp_path / "files.tar"), TEST, None, {}, resolve)


def test_the_first_kernel_whose_sub_test_fails_is_found(machines, tmp_path):
    steps = [Available(version, version) for version in VERSIONS]
    told = []
    status = search(machines.options, TEST, steps, [steps[0], steps[-1]], machines, machines.task, told.append)
    assert status == 0
    assert "last kernel that passes: 6.12.4 (under 2 of 2 seeds)\nfirst kernel that fails: 6.12.5 (under 2 of 2 seeds)" in told[-1]
    assert (tmp_path / "result.txt").read_text().startswith(TEST)


def test_a_kernel_that_does_not_boot_says_nothing(machines):
    with pytest.raises(Unusable, match="^the kernel did not boot$"):
        machines.attempt("6.12.3", 1)


def test_a_result_that_the_command_does_not_report_is_lost_and_others_are_named(machines):
    machines.test = "net:icmp.sh::third"
    result = machines.attempt("6.12.1", 1)
    assert (result.outcome, result.message) == ("lost", "the command reports no such result; there are: first, second")


def test_an_interrupted_bisection_judges_nothing_more(machines):
    machines.end()
    with pytest.raises(KeyboardInterrupt):
        machines.attempt("6.12.1", 1)


def test_the_result_is_of_one_command(tmp_path):
    one, other = (Task(name, (name,), "/", tmp_path) for name in ("net:a.sh", "net:b.sh"))
    assert chosen([one], "x") == (one, "net:a.sh::x")
    assert chosen([one, other], "net:b.sh::x") == (other, "net:b.sh::x")
    for word in ("x", "net:c.sh::x"):
        with pytest.raises(SpecError, match="--bisect"):
            chosen([one, other], word)


@pytest.mark.parametrize("words", [["--kernel", "6.1"], ["--kernel", "6.1", "--kernel", "6.12", "--out", "."]], ids=" ".join)
def test_a_bisection_is_between_two_kernels_and_has_no_files(words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_bisect, "bisect_command", None)
    assert front.run(commandline.parse(["run", "--bisect", "x", *words, "--", "ls"])) == 2
    assert capsys.readouterr().err.startswith("kdrift: --bisect")


@pytest.mark.parametrize("outcome, message, version, found", [
    ("failed", "second failed", "6.12.7", "known"), ("failed", "exit status 9", "6.12.7", "failed"), ("passed", "", "6.12.7", "fixed"),
    ("failed", "second failed", "6.12.9", "failed"),
])
def test_a_listed_issue_is_recognised_by_its_signature(monkeypatch, outcome, message, version, found):
    issue = Issue("icmp-second", "icmp: second", ("net:icmp.sh::second",), (Affected("6.12.5", "6.12.8"),), signatures=("second failed",))
    monkeypatch.setattr("report.known.load", lambda: (issue,))
    test = TestResult(TEST, outcome, message=message, signatures=[results.signature(message)] if message else [])
    recognise(test, version)
    assert test.outcome == found
    assert bool(test.candidates) == (version == "6.12.9")
    assert bool(test.listed) == (message == "exit status 9")


@pytest.fixture
def folder(machines, tmp_path):
    """What --bug-report writes of a sub-test that fails on 6.12.5 and passes on 6.12.1."""
    kernel = KernelRun("0", "6.12.5", "6.12.5", machines.resolve("6.12.5", None))
    with Sessions(machines.options, [kernel], None, {}, quiet=True) as session:
        runs = session.run([machines.task])
    kernels = [results.results_of(runs[0].kernel, runs, 1)]
    record = {"started": "", "duration_s": 1.0, "arguments": [], "python": "", "exit_status": 1}

    def attempt(task, test, spec, seed):
        machines.test = test
        return machines.attempt(spec, seed)
    told = []
    Bugs(tmp_path / "bugs", "6.12.1", {"A": "b c"}, Private(frozenset(), frozenset()), attempt).write(runs, kernels, record, told.append)
    place, = (tmp_path / "bugs").iterdir()
    return place, told


def test_a_failing_sub_test_has_a_folder_with_its_files_and_how_to_run_it(folder):
    place, told = folder
    assert place.name == "net-icmp.sh-second-on-6.12.5"
    assert {"report.md", "output.txt", "files.tar", "run.sh", "results.json", "SHA256SUMS"} <= {path.name for path in place.iterdir()}
    assert (place / "run.sh").read_text() == "#!/bin/sh\nexport A='b c'\ncd / || exit\n./icmp.sh < /dev/null\n"
    report = (place / "report.md").read_text()
    assert "`./icmp.sh` reports `second` as passed." in report and "sh run.sh" in report and "kdrift pytest" not in report


def test_a_failure_is_tried_again_on_its_kernel_and_on_a_good_one(folder):
    _, told = folder
    assert told[0].endswith("the same failure came again under 3 of 3 seeds; on 6.12.1: passed")


def test_a_regression_is_tried_under_each_seed_and_its_command_once_for_all_results(machines):
    ran = []

    def again(task):
        ran.append(task.name)
        return machines
    new, old = (CommandBench(again, [machines.task], spec) for spec in ("6.12.7", "6.12.1"))
    found = confirm([TEST, "net:icmp.sh::first"], new, old, 3)
    assert (found[TEST].new, found[TEST].old, found[TEST].deterministic) == ([1, 2, 3], [], True)
    assert found["net:icmp.sh::first"].new == []
    assert len(ran) == 7
    again_said = certainty(TestResult(TEST, confirmation=found[TEST].as_dict()), KernelResult("6.12.7", "6.12.7"))
    assert again_said == ["fails 3 of 3 on new, 0 of 3 on old"]


def test_a_regression_whose_kernel_cannot_be_had_again_says_so(machines):
    bench = CommandBench(lambda task: machines, [machines.task], "6.12.3")
    assert confirm([TEST], bench, None, 2)[TEST].trouble == "the kernel did not boot"
