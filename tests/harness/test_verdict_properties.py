"""The verdict of any two results: every test of either side is in one class, and nothing judged is never success."""

from collections import Counter

import pytest

from common.status import Exit
from report.classes import CLASSES, DRIFT, FIXED, GONE, KNOWN, NEW, REGRESSION, SAME, UNJUDGED
from report.results import KernelResult, TestResult
from report.status import exit_status
from report.verdict import FAIL_ON, compare

hypothesis = pytest.importorskip("hypothesis", reason="./kdrift selftest installs it")
st = hypothesis.strategies

NAMES = [f"t.py::test_{letter}" for letter in "abc"]
LEFT_OUT = "left out"
# The same examples in every run, and no record of those of earlier ones.
hypothesis.settings.register_profile("kdrift", max_examples=300, derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("kdrift")


def measured(value, tolerance, unit="s"):
    return {"name": "m", "value": value, "unit": unit, "tolerance": tolerance}


MEASUREMENTS = [[], [measured(1.0, None)], [measured(1.1, 0.2)], [measured(1.0, 5)], [measured(2, 0)], [measured(1.0, 0.2, "B")],
                [measured(1.0, 0.2), measured(1.3, 0.2)]]
TRAFFIC = [{}, {"client sent ipv4 tcp S seq 0 len 0": 1},
           {"client sent ipv4 tcp S seq 0 len 0": 2, "client counts Ip.OutRequests": 1, "the kernel logs: x": 1},
           {"": 1, "x": 2, "x y": 3}]
# What a test may have done on a kernel: not chosen, left out, or any outcome with what comes with it; none is rare.
DONE = 10 * [None, LEFT_OUT]
DONE += [dict(outcome=outcome, measurements=seen, traffic=traffic) for outcome in ("passed", "fixed") for seen in MEASUREMENTS
         for traffic in TRAFFIC]
DONE += 5 * [dict(outcome=outcome, message=message, measurements=seen) for outcome in ("failed", "crashed", "known", "lost")
             for message, seen in (("", []), ("assert 1 == 2\nwhere", MEASUREMENTS[1]))]
DONE += 7 * [dict(outcome="skipped", skip=skip, message=message) for skip in ("kernel", "host")
             for message in ("", "no tun\nat all", "no vlan")]


def kernels(label):
    def kernel(done, error):
        found = dict(zip(NAMES, done, strict=True))
        return KernelResult(label, label, error=error, unrun=[name for name, what in found.items() if what == LEFT_OUT],
                            tests=[TestResult(name, **what) for name, what in found.items() if isinstance(what, dict)])
    return st.builds(kernel, st.tuples(*[st.sampled_from(DONE)] * len(NAMES)), st.sampled_from([None, None, None, "it did not boot"]))


pairs = st.tuples(kernels("old"), kernels("new"))


def ids(comparison, *kinds):
    return {entry.id for entry in comparison.of(*kinds)}


@hypothesis.given(pairs)
def test_every_test_of_either_side_is_in_exactly_one_class(pair):
    comparison = compare(*pair)
    every = {name for kernel in pair for name in (*kernel.by_id(), *kernel.unrun)}

    assert Counter(entry.id for entry in comparison.entries) == Counter(every)
    assert {entry.kind for entry in comparison.entries} <= set(CLASSES)
    assert comparison.counts.total() == len(every)
    assert all(entry.why for entry in comparison.of(UNJUDGED))
    assert sorted(name for names in comparison.unjudged.values() for name in names) == sorted(ids(comparison, UNJUDGED))


@hypothesis.given(pairs)
def test_what_is_said_adds_up(pair):
    comparison = compare(*pair)
    total, _, classes = comparison.sums().partition(" test")

    assert int(total) == sum(int(each.split()[0]) for each in classes.partition(": ")[2].split(", ") if each)
    assert comparison.judged <= int(total) - comparison.counts[UNJUDGED]


@hypothesis.given(pairs, st.lists(st.sampled_from(FAIL_ON), unique=True))
def test_the_status_is_0_only_where_something_was_judged_and_nothing_fails(pair, words):
    comparison = compare(*pair, words)
    status = exit_status(pair, [comparison])

    ran = [entry for entry in comparison.entries
           if any(side and side.outcome not in ("skipped", "lost") for side in (entry.was, entry.now))]
    if status == Exit.OK:
        assert ran and comparison.judged and not comparison.incomplete()
    assert (status == Exit.REGRESSION) == bool(comparison.failing)
    if REGRESSION in words and ids(comparison, REGRESSION):
        assert status == Exit.REGRESSION


@hypothesis.given(kernels("old"))
def test_a_result_compared_with_itself_is_nothing_new(kernel):
    comparison = compare(kernel, kernel, exact=True)

    assert {entry.kind for entry in comparison.entries} <= {SAME, KNOWN, UNJUDGED}
    assert not comparison.drift and comparison.ok
    assert ids(comparison, UNJUDGED) == {*kernel.unrun, *(
        test.id for test in kernel.tests
        if test.outcome in ("lost", "failed", "crashed") or (test.outcome, test.skip) == ("skipped", "host"))}


@hypothesis.given(pairs)
def test_the_other_way_round_a_regression_is_fixed_and_gone_is_new(pair):
    there, back = compare(*pair), compare(*reversed(pair))
    good = {entry.id for entry in there.entries if entry.was and entry.was.outcome in ("passed", "fixed")}

    assert ids(there, REGRESSION) & good == ids(back, FIXED)
    assert ids(there, FIXED) == ids(back, REGRESSION) & {
        entry.id for entry in back.entries if entry.was and entry.was.outcome in ("passed", "fixed")}
    assert (ids(there, GONE), ids(there, NEW), ids(there, KNOWN)) == (ids(back, NEW), ids(back, GONE), ids(back, KNOWN))
    # A tolerance is of either side.
    assert (ids(there, DRIFT), ids(there, SAME)) == (ids(back, DRIFT), ids(back, SAME))
