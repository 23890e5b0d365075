"""Every test of either side is in exactly one class of the verdict, and nothing judged is never success."""

import itertools

import pytest

from common.status import Exit
from report.classes import CLASSES, MATRIX, OUTCOMES
from report.measured import moved
from report.results import KernelResult, TestResult
from report.status import bisect_status, exit_status
from report.table import kernel_lines
from report.verdict import compare, fail_on


def results_of(outcome):
    if outcome == "absent":
        return []
    skip = {"lacks": "kernel", "skipped": "host"}.get(outcome, "")
    return [TestResult("t.py::test_x", "skipped" if skip else outcome, skip=skip, message="why")]


@pytest.mark.parametrize("old, new", list(itertools.product(OUTCOMES, repeat=2)))
def test_each_pair_of_outcomes_has_one_class(old, new):
    kernels = [KernelResult(name, name, tests=results_of(outcome)) for name, outcome in (("6.1", old), ("6.12", new))]
    comparison = compare(*kernels)

    assert sum(comparison.counts.values()) == len(comparison.entries) == ((old, new) != ("absent", "absent"))
    for entry in comparison.entries:
        assert entry.kind == MATRIX[old, new] and entry.kind in CLASSES
        assert entry.kind != "not judged" or entry.why
    status = exit_status(kernels, [comparison])
    assert (status == Exit.OK) <= bool(comparison.judged)
    assert (status == Exit.REGRESSION) == (MATRIX[old, new] in ("regression", "gone"))


def test_what_a_kernel_lacks_is_gone_and_what_the_host_lacks_is_not_judged():
    assert (MATRIX["passed", "lacks"], MATRIX["passed", "skipped"]) == ("gone", "not judged")
    assert MATRIX["lacks", "passed"] == "new"


def test_what_neither_kernel_has_is_the_same_and_yet_nothing_was_judged():
    old, new, other = (KernelResult(name, name, tests=[TestResult("t.py::test_x", "skipped", skip="kernel", message=why)])
                       for name, why in (("6.1", "no tun: x"), ("6.12", "no tun: x"), ("6.18", "no vlan")))

    comparison = compare(old, new)
    assert comparison.lines() == ["6.1 -> 6.12: nothing was judged, 1 test: 1 same",
                                  "  same        t.py::test_x: skipped on both: no tun: x"]
    assert exit_status([old, new], [comparison]) == Exit.NOTHING_JUDGED
    assert compare(old, other).headline() == "6.1 -> 6.18: nothing was judged, 1 test: 1 not judged"


def test_a_failure_that_is_listed_for_the_old_kernel_alone_is_a_regression():
    old = KernelResult("6.1", "6.1", version="6.1.1",
                       tests=[TestResult("t.py::test_x", "known", issue="raw-hdrincl-ihl-lt5", message="assert 1 == 2")])
    new = KernelResult("6.12", "6.12", tests=[TestResult("t.py::test_x", "failed", message="assert 3 == 2")])

    head, line, words = compare(old, new).lines()
    assert (head, line) == ("6.1 -> 6.12: 1 regression, 1 test: 1 regression", "  regression  t.py::test_x: known -> failed: assert 3 == 2")
    assert words.strip().startswith("differs from the known issue on 6.1: ipv4: raw: reject IP_HDRINCL")


def test_a_measurement_that_moved_is_shown_of_a_regression_too():
    measurements = [[{"name": name, "value": value, "unit": "s", "tolerance": None} for name in names]
                    for names, value in (("mn", 1.0), ("m", 3.0))]
    old = KernelResult("6.1", "6.1", tests=[TestResult("t.py::test_x[a]", measurements=measurements[0])])
    new = KernelResult("6.12", "6.12", tests=[TestResult("t.py::test_x[a]", "failed", measurements=measurements[1])])

    comparison = compare(old, new)
    assert comparison.counts == {"regression": 1}
    assert comparison.drift == ["m [a]: 1 -> 3 s (tolerance 0)"]


@pytest.mark.parametrize("tolerances, moves",
                         [((0.1, 0.3), False), ((0.3, 0.1), False), ((0.3, None), False), ((0.1, 0.1), True), ((None, None), True)])
def test_the_larger_of_two_tolerances_counts(tolerances, moves):
    old, new = ([{"name": "m", "value": value, "unit": "s", "tolerance": tolerance}]
                for value, tolerance in zip((1.0, 1.2), tolerances, strict=True))

    assert bool(moved(old, new)) == bool(moved(new, old)) == moves
    assert moved(old, new, exact=True)


def test_a_kernel_of_which_nothing_was_judged_is_named_beside_one_that_was():
    skipped = [TestResult(f"t.py::test_{name}", "skipped", skip="host", message="needs a USB controller") for name in "ab"]
    kernels = [KernelResult("6.1", "6.1", release="6.1.0", tests=skipped), KernelResult("6.12", "6.12", tests=[TestResult("t.py::test_a")])]

    assert exit_status(kernels) == Exit.OK
    assert exit_status(kernels[:1]) == Exit.NOTHING_JUDGED
    assert kernel_lines(kernels)[1] == "6.1: nothing was judged, every test was skipped: needs a USB controller"


@pytest.mark.parametrize("silent", ["lost", "skipped", "absent"])
def test_what_says_nothing_of_its_kernel_is_not_judged(silent):
    assert {MATRIX[silent, other] for other in OUTCOMES} | {MATRIX[other, silent] for other in OUTCOMES} == {"not judged"}


def test_what_was_left_out_is_named():
    old = KernelResult("6.1", "6.1", tests=[TestResult("t.py::test_a"), TestResult("t.py::test_b")])
    new = KernelResult("6.12", "6.12", tests=[TestResult("t.py::test_a")], unrun=["t.py::test_b"])
    comparison = compare(old, new)

    assert comparison.headline() == "6.1 -> 6.12: no regression, incomplete, 2 tests: 1 same, 1 not judged"
    assert comparison.lines()[1:] == ["  incomplete  6.12: ended early, 1 test did not run",
                                      "  not judged  t.py::test_b: not run on 6.12: the run ended early"]


@pytest.mark.parametrize("words, status", [("regression,gone", 0), ("drift", 1), ("regression,drift", 1)])
def test_what_fails_can_be_chosen(words, status):
    def measured(value):
        return TestResult("t.py::test_m", measurements=[{"name": "m", "value": value, "unit": "s", "tolerance": 0.1}])
    kernels = [KernelResult(name, name, tests=[measured(value)]) for name, value in (("6.1", 1.0), ("6.12", 1.2))]

    assert exit_status(kernels, [compare(*kernels, fail_on(words))]) == status


def test_a_word_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="unknown class 'drfit': expected regression, gone"):
        fail_on("gone,drfit")


@pytest.mark.parametrize("outcome, status", [
    ("passed", 0), ("failed", 1), ("crashed", 1), ("known", 1), ("lost", 125), ("skipped", 125), ("lacks", 125),
])
def test_a_bisection_is_told_only_what_is_certain(outcome, status):
    kernels = [KernelResult("a", "a", tests=results_of(outcome))]

    assert bisect_status(exit_status(kernels), kernels, compared=False) == status


def test_a_bisection_stops_for_wrong_usage_and_for_an_interruption():
    assert bisect_status(Exit.USAGE, [], compared=False) > 127
    assert bisect_status(Exit.INTERRUPTED, [], compared=False) == 130


@pytest.mark.parametrize("outcome, unrun, state", [
    ("passed", [], "good"), ("passed", ["t.py::test_b"], "unsure"), ("failed", ["t.py::test_b"], "bad"), ("skipped", [], "unsure"),
])
def test_a_run_that_ended_early_is_good_for_nobody(outcome, unrun, state):
    old, new = KernelResult("6.1", "6.1", tests=results_of("passed")), KernelResult("6.12", "6.12", tests=results_of(outcome), unrun=unrun)
    assert compare(old, new).state == state
