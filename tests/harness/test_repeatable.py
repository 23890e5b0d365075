"""The same tests give the same run, whatever else the host does; another seed gives another one."""

import subprocess
import sys
from contextlib import ExitStack

import pytest

from tests.harness.sessions import Session

LOOPS = 4
COST = "wall_s"                             # what the host is allowed to change of a test's result


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What three sessions at once, beside busy loops, have recorded of each test: two of seed 1, then one of seed 2.

    Their directories have names of other lengths.
    """
    with ExitStack() as stack:
        for _ in range(LOOPS):
            stack.callback(subprocess.Popen([sys.executable, "-c", "while True: pass"]).kill)
        sessions = [stack.enter_context(Session(tmp_path_factory.mktemp(name), "test_repeatable.py", "--slots=3", *seed))
                    for name, seed in (("first", []), ("another", []), ("other", ["--seed=2"]))]
        return [recorded(session.end().tests()) for session in sessions]


def recorded(tests):
    """Everything but the wall time."""
    return {name: {field: value for field, value in test.items() if field != COST} for name, test in tests.items()}


def measured(run, test):
    return {each["name"]: each["value"] for each in run[test]["measurements"]}


def test_two_runs_agree_to_the_nanosecond_and_in_every_random_number(runs):
    first, again, _ = runs
    assert first["test_connection"]["outcome"] == first["test_time_and_random_numbers"]["outcome"] == "passed"
    assert len(measured(first, "test_time_and_random_numbers")) == 2 and first["test_connection"]["traffic"]
    assert first == again


def test_no_test_pays_for_what_the_kernel_does_at_its_first_connection(runs):
    """The first connect() of a machine fills table_perturb, which takes 12 ms."""
    assert [run["test_first_connection_takes_no_longer_than_the_next"]["outcome"] for run in runs] == ["passed"] * 3


def test_another_seed_gives_other_times_and_random_numbers(runs):
    first, _, other = runs
    for test in first:
        values, others = measured(first, test), measured(other, test)
        assert not [name for name in values if values[name] == others[name]], (values, others)
