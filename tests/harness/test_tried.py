"""`./kdrift sensitivity --tests`: which tests it calls red, and what it keeps, without a machine."""

import argparse
import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from common.project import PROJECT
from rerun.conversation import Gone
from sensitivity.tried import EXPLAINED, GREEN, NOT_RUN, RED, SuiteStudy, TriedTest, World, better, in_words, spread_over, summary

CASES = "tests/harness/cases/test_disturbed.py"
# pytest with a plugin in place of rerun/guest.py: each test of the cases under some of its disturbances.
PLUGIN = '''
import json, pytest

SOME = ("seconds", "setsockopt", "send", "getsockopt", "getsockname", "counter", "sysctl", "each host loses all packets")

@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    from fixtures import disturbances
    told = {}
    for item in session.items:
        seen = disturbances.run(item, None)
        tried = {tuple(each): disturbances.run(item, tuple(each)) for each in seen["candidates"] if each[0].endswith(SOME)}
        told[item.originalname] = [seen["outcome"], seen["assertions"],
                                   [[*each, found["red"]] for each, found in tried.items() if found["red"]], len(tried),
                                   disturbances.run(item, None)["outcome"]]
    print("told", json.dumps(told))
    return True
'''


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """By test: its outcome, its assertions, the disturbances under which it was red and how, of how many, and its outcome afterwards."""
    directory = tmp_path_factory.mktemp("tried")
    (directory / "loop_of_disturbances.py").write_text(PLUGIN)
    done = subprocess.run([sys.executable, "-m", "pytest", "-c", "pytest.ini", "-s", "-p", "no:terminal", "-p", "loop_of_disturbances",
                           CASES], cwd=PROJECT,
                          env={**os.environ, "PYTHONPATH": str(directory)}, capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("told ")), "")
    assert line, done.stdout + done.stderr
    return json.loads(line[5:])


def reds(told, name):
    return {(called.rpartition(".")[2], number, how) for called, number, how, _red in told[name][2]}


def test_nothing_is_left_of_a_disturbance(told):
    assert {(each[0], each[4]) for each in told.values()} == {("passed", "passed")}


def test_a_test_that_looks_at_nothing_stays_green(told):
    """Its calls can be disturbed; that the test itself breaks (TypeError) proves nothing."""
    assert told["test_looks_at_nothing"][2] == [] and told["test_looks_at_nothing"][3] >= 5


def test_a_test_that_only_has_an_upper_bound_is_red_if_the_time_is_longer(told):
    assert ("seconds", 0, "longer") in reds(told, "test_has_an_upper_bound") and ("seconds", 0, "shorter") not in reds(
        told, "test_has_an_upper_bound")


def test_a_step_that_is_left_out_is_the_kernels_own_answer(told):
    """Without setsockopt() the option has its default, without send() nothing arrives: an error counts, too."""
    assert ("setsockopt", 0, "left out") in reds(told, "test_sets_an_option")
    assert {("send", 0, "left out"), ("each host loses all packets", 0, "")} <= reds(told, "test_delivers")


def test_another_answer_counts_only_if_an_assertion_looks_at_it(told):
    assert ("getsockopt", 0, "more") in reds(told, "test_sets_an_option")
    assert not {each for each in reds(told, "test_delivers") if each[0] == "getsockname"}


def test_the_statement_that_broke_is_told_with_its_assertion(told):
    _outcome, [[line, text]], found, *_rest = told["test_sets_an_option"]
    assert text.startswith("assert conn.getsockopt(")
    assert {(statement, at) for *_asked, (statement, at, _error) in found if at} == {(text, line)}


@pytest.mark.parametrize("one, other, expected, untried", [
    (GREEN, RED, RED, ("b",)), (RED, NOT_RUN, RED, ("a",)), (NOT_RUN, GREEN, GREEN, ("b",)), (RED, RED, RED, ()),
])
def test_of_two_parameter_sets_the_better_counts(one, other, expected, untried):
    found = better(TriedTest("t", one, untried=("a",), runs=2), TriedTest("t", other, untried=("b",), runs=3))
    assert (found.outcome, found.untried, found.runs) == (expected, untried, 5)


def test_parameter_sets_are_spread_from_the_first_to_the_last():
    assert list(spread_over([5], 3)) == [5] and list(spread_over(list(range(9)), 3)) == [0, 4, 8] and list(spread_over([1, 2], 3)) == [1, 2]


def test_a_disturbance_in_words():
    assert in_words(("netns.f", 0, "left out")) == "netns.f(), each time: left out"
    assert in_words(("netns.f", 2, "more")) == "netns.f(), call 2: more"
    assert in_words(("links are slow", 0, "")) == "links are slow"


class Bench:
    """Stands in for the bench: `answers` by what is asked for; Gone is raised."""

    def __init__(self, answers):
        self.answers, self.tests, self.over, self.restored_times = answers, ["tests/tcp/test_x.py::test_a[1]"], False, 0
        self.kernel = argparse.Namespace(key="k")

    @contextmanager
    def restored(self, _tests, _seed):
        self.restored_times += 1
        yield self, self

    def results(self, _conversation, _tests):
        return iter(())

    def computed_s(self):
        return 0.0

    def ask(self, _order, argument):
        self.asked = argument[1]

    def answer(self, _within):
        answer = self.answers[self.asked].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def undisturbed(outcome="passed"):
    return {"outcome": outcome, "red": None, "assertions": [(7, "assert a"), (8, "assert b")],
            "candidates": [["f", 0, "more"], ["g", 0, "less"]]}


def found(red):
    return {"outcome": "failed" if red else "passed", "red": red, "assertions": [], "candidates": []}


F, G = ("f", 0, "more"), ("g", 0, "less")


@pytest.mark.parametrize("answers, every, outcome, by, untried, machines", [
    ({None: [undisturbed()], F: [found(["assert a", 7, "E"])]}, False, RED, "f(), each time: more", ("assert b",), 1),
    ({None: [undisturbed()], F: [found(["assert a", 7, "E"])], G: [found(["assert b", 8, "E"])]}, True, RED, "f(), each time: more", (), 1),
    ({None: [undisturbed()], F: [found(None)], G: [found(None)]}, False, GREEN, "", ("assert a", "assert b"), 1),
    ({None: [undisturbed()], F: [Gone("crash")], G: [found(["assert a", 7, "E"])]}, False, RED, "g(), each time: less", ("assert b",), 2),
    ({None: [undisturbed("failed"), undisturbed()], F: [found(["assert a", 7, "E"])]}, False, RED, "f(), each time: more",
     ("assert b",), 2),
    ({None: [undisturbed("failed"), undisturbed("failed")]}, False, NOT_RUN, "", (), 2),
    ({None: [Gone("crash")]}, False, NOT_RUN, "", (), 1),
], ids=["red", "every", "green", "a lost machine says nothing", "spoilt by an earlier test", "fails undisturbed", "crashes undisturbed"])
def test_a_test_is_tried_until_it_is_red(answers, every, outcome, by, untried, machines):
    study = SuiteStudy.__new__(SuiteStudy)
    study.bench, study.options = Bench(answers), argparse.Namespace(every=every, most=None)
    tried = study._try_one(World(study.bench), "tests/tcp/test_x.py::test_a", 0)
    assert (tried.outcome, tried.by, tried.untried, study.bench.restored_times) == (outcome, by, untried, machines)


def test_a_run_that_ends_calls_no_test_green():
    study = SuiteStudy.__new__(SuiteStudy)
    study.bench, study.options = Bench({None: [undisturbed()], F: [Gone("ended")]}), argparse.Namespace(every=False, most=None)
    study.bench.over = True
    with pytest.raises(Gone):
        study._try_one(World(study.bench), "tests/tcp/test_x.py::test_a", 0)


def test_the_summary_names_all_that_are_not_red():
    lines = summary([TriedTest("a", RED, runs=3), TriedTest("b", GREEN, runs=60), TriedTest("c", NOT_RUN, error="undisturbed: skipped"),
                     TriedTest("d", EXPLAINED, error="why")])
    assert lines == ["1 red, 1 green, 1 not run, 1 explained; 63 disturbed runs", "green     b", "not run   c: undisturbed: skipped",
                     "explained d: why"]


@pytest.mark.parametrize("outcome, changed, known", [
    (RED, "", True), (GREEN, "", True), (RED, "tests/tcp/test_x.py", False), (RED, "tests/tcp/conftest.py", False),
    (RED, "fixtures/disturbances.py", True), (GREEN, "fixtures/disturbances.py", False), (GREEN, "sensitivity/unreachable.toml", False),
])
def test_what_has_not_changed_is_not_tried_again(tmp_path, monkeypatch, outcome, changed, known):
    """What was red stays so under other disturbances. A half-written line is left out."""
    for name in ("tests/tcp/test_x.py", "tests/tcp/conftest.py", "fixtures/disturbances.py", "sensitivity/unreachable.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    monkeypatch.setattr("sensitivity.tried.PROJECT", tmp_path)
    monkeypatch.setattr("sensitivity.tried.UNREACHABLE", tmp_path / "sensitivity/unreachable.toml")
    study = SuiteStudy.__new__(SuiteStudy)
    study.bench, study.options, study._ledger = Bench({}), argparse.Namespace(every=False), tmp_path / "ledger"
    test = TriedTest("tests/tcp/test_x.py::test_a", outcome, untried=("assert a",))
    study._keep(test)
    with study._ledger.open("a") as file:
        file.write('{"test": "ha')
    if changed:
        (tmp_path / changed).write_text("after")
    assert study._known() == ({test.test: test} if known else {})
