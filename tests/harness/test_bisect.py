"""./kdrift bisect: where a change is searched for, with a stand-in for the machines."""
import json
import threading

import pytest

from bisection.drive import Bisection, EndUnusable
from bisection.machines import Unusable
from bisection.question import NoDifference, ask
from bisection.search import NEW, OLD, SKIP, after, bracket, probes, rounds
from bisection.state import NAME, StateError, opened
from common.errors import NoSpaceError
from kernels.versions import Available
from report.results import TestResult
from report.signature import signature

TEST = "tests/tcp/test_a.py::test_b"
PASSES = TestResult(TEST)


def fails(message="assert 0 == 1"):
    return TestResult(TEST, "failed", message=message, signatures=[signature(message)])


def measures(value, tolerance=1.0):
    return TestResult(TEST, measurements=[{"name": "dead_after", "value": value, "unit": "s", "tolerance": tolerance}])


def sends(**packets):
    return TestResult(TEST, traffic={f"client sends {name}": number for name, number in packets.items()})


class Kernels:
    """Stand-in for bisection.machines.Machines: a result, or an exception, for each kernel; `by_seed` overrides it."""

    def __init__(self, results, by_seed=None):
        self.results, self.by_seed, self.asked, self.fetched, self.kept, self.over = results, by_seed or {}, [], [], [], False

    def attempt(self, spec, seed):
        self.asked.append((spec, seed))
        result = self.by_seed.get((spec, seed), self.results[spec])
        if isinstance(result, BaseException):
            raise result
        return result

    def ahead(self, specs):
        self.fetched.append(specs)

    def keep(self, specs):
        self.kept.append(sorted(specs))

    def end(self):
        self.over = True

    @property
    def tried(self):
        return [spec for spec, seed in self.asked if seed == 1]


def steps_of(results):
    return [Available(name, name) for name in results]


def search(results, directory, machines=1, seeds=1, measurement=None, change=None, by_seed=None, tolerance=None):
    """The result, the stand-in, and the lines that were said."""
    kernels, said = Kernels(results, by_seed), []
    bisection = Bisection(steps_of(results), kernels, opened(directory, {"test": TEST}),
                          lambda old, new: ask(measurement, change, old, new, tolerance), machines, seeds, said.append)
    return bisection.run(), kernels, said


def numbered(*results):
    return {f"6.12.{number}-1": result for number, result in enumerate(results)}


@pytest.mark.parametrize("machines", [1, 2, 3])
def test_every_place_of_the_change_is_found_in_as_many_rounds_as_there_must_be(machines):
    for count in range(2, 40):
        for first in range(1, count):
            known, tried = {0: OLD, count - 1: NEW}, 0
            while left := bracket(known).left:
                known |= {number: NEW if number >= first else OLD for number in probes(left, machines)}
                tried += 1
            assert bracket(known).exact and bracket(known).new == first
            assert tried <= rounds(count - 2, machines)


def test_with_two_machines_what_is_left_is_cut_into_three():
    assert probes(list(range(1, 9)), 2) == [3, 6]
    assert probes([4, 5], 2) == [4, 5]


def test_those_that_may_follow_are_fetched_however_a_round_ends():
    known = {0: OLD, 9: NEW}
    following = after(known, [3, 6], 2)
    for sides in ((OLD, OLD), (OLD, NEW), (NEW, NEW)):
        assert set(probes(bracket(known | dict(zip((3, 6), sides, strict=True))).left, 2)) <= set(following)


def test_the_first_that_fails_is_found_and_the_last_two_are_tried_under_every_seed(tmp_path):
    found, kernels, _said = search(numbered(PASSES, PASSES, PASSES, fails(), fails(), fails()), tmp_path, seeds=3)
    assert list(found.lines()) == ["last kernel that passes: 6.12.2-1 (under 3 of 3 seeds)",
                                   "first kernel that fails: 6.12.3-1 (under 3 of 3 seeds)"]
    assert found.certain
    assert kernels.asked[:2] == [("6.12.0-1", 1), ("6.12.5-1", 1)]
    assert {spec for spec, seed in kernels.asked if seed > 1} == {"6.12.2-1", "6.12.3-1"}


def test_the_fix_is_found_where_the_older_end_fails(tmp_path):
    found, _kernels, _said = search(numbered(fails(), fails(), PASSES, PASSES), tmp_path)
    assert list(found.lines())[1] == "first kernel that passes: 6.12.2-1 (under 1 of 1 seed)"


@pytest.mark.parametrize("skip, why", [
    (fails("OSError: [Errno 22] Invalid argument"), "fails otherwise: OSError: EINVAL Invalid argument"),
    (TestResult(TEST, "skipped", message="the kernel has no ipip"), "skipped: the kernel has no ipip"),
    (TestResult(TEST, "lost", message="the machine was lost: no response"), "lost: the machine was lost: no response"),
    (Unusable("the kernel did not boot"), "the kernel did not boot"),
], ids=["another failure", "a feature is missing", "lost", "no boot"])
def test_a_kernel_that_says_nothing_is_skipped_and_named_where_it_hides_the_change(skip, why, tmp_path):
    found, _kernels, said = search(numbered(PASSES, PASSES, skip, fails(), fails()), tmp_path)
    assert any(line.startswith(f"6.12.2-1: skipped: {why} (") for line in said)
    assert list(found.lines()) == ["last kernel that passes: 6.12.1-1 (under 1 of 1 seed)",
                                   "first kernel that fails that was judged: 6.12.3-1 (under 1 of 1 seed)",
                                   "the first one may also be one of these, which say nothing:", f"  6.12.2-1: {why}"]
    assert not found.certain


def test_a_skip_elsewhere_costs_nothing(tmp_path):
    found, _kernels, _said = search(numbered(PASSES, Unusable("no"), PASSES, PASSES, fails(), fails()), tmp_path)
    assert found.certain and found.at.new == 4


def test_a_change_that_is_taken_back_is_said(tmp_path):
    found, _kernels, _said = search(numbered(*[PASSES] * 2, *[fails()] * 2, *[PASSES] * 3, *[fails()] * 3), tmp_path, machines=2)
    assert any(line.startswith("it changes more than once: 6.12.6-1 is again like 6.12.") for line in found.lines())


def test_a_seed_that_disagrees_makes_it_uncertain(tmp_path):
    found, _kernels, _said = search(numbered(PASSES, fails()), tmp_path, seeds=4, by_seed={("6.12.1-1", 3): PASSES})
    assert "first kernel that fails: 6.12.1-1 (under 3 of 4 seeds)" in found.lines() and not found.certain


def test_kernels_of_two_series_are_no_line_of_history(tmp_path):
    found, _kernels, _said = search({"6.1.176-1": fails(), "6.12.43-1": PASSES}, tmp_path)
    assert "6.1 and 6.12 are no line of history: a stable update may have the change too" in found.lines()


def test_a_measurement_is_followed_to_where_it_leaves_its_tolerance(tmp_path):
    found, _kernels, said = search(numbered(measures(10), measures(10.4), measures(15), measures(20), measures(20.5)), tmp_path,
                                   measurement="dead_after")
    assert any(line.startswith("6.12.2-1: skipped: 15 s, within the tolerance of neither end: see --tolerance") for line in said)
    lines = list(found.lines())
    assert lines[0] == "last kernel with dead_after 10 s: 6.12.1-1 (under 1 of 1 seed)"
    assert lines[1].startswith("first kernel with dead_after 20.5 s that was judged: 6.12.3-1")


@pytest.mark.parametrize("tolerance, certain", [(None, False), (0.05, False), (0.1, True)])
def test_a_tolerance_of_the_users_replaces_that_of_the_test(tolerance, certain, tmp_path):
    """A wait for the rest of a timer differs by more than the tolerance of a wait for all of it."""
    results = numbered(measures(3.88, 0.01), measures(3.96, 0.01), measures(0.004, 0.01), measures(0.006, 0.01))
    found, _kernels, _said = search(results, tmp_path, measurement="dead_after", tolerance=tolerance)
    assert found.certain == certain and found.at.new == 2


def test_one_change_is_followed_whatever_else_changes(tmp_path):
    old, other, both = sends(udp=1), sends(udp=1, esp=2), sends(udp=3, esp=2)
    found, _kernels, _said = search(numbered(old, other, other, both, both), tmp_path, change="more packets are sent: udp")
    assert found.at.exact and found.at.new == 3
    assert list(found.lines())[1].startswith("first kernel that shows: more packets are sent: udp: 6.12.3-1")


def test_a_kernel_between_both_ends_in_this_change_is_skipped(tmp_path):
    found, _kernels, said = search(numbered(sends(udp=1), sends(udp=2), sends(udp=3)), tmp_path, change="more packets are sent: udp")
    assert any(line.startswith("6.12.1-1: skipped: like neither end in this change") for line in said) and not found.certain


@pytest.mark.parametrize("old, new, options, why", [
    (PASSES, PASSES, {}, "the test passes on both ends"),
    (fails(), fails(), {}, "the test fails on both ends: assert 0 == #"),
    (fails(), fails("OSError"), {}, "the test fails on both ends: assert 0 == #; on the new end: OSError"),
    (PASSES, TestResult(TEST, "skipped", message="no tun"), {}, "the new end is not judged, skipped: no tun"),
    (measures(10), measures(10.5), {"measurement": "dead_after"},
     "dead_after is the same on both ends within its tolerance: 10 s and 10.5 s"),
    (measures(10), measures(20), {"measurement": "dead_after", "tolerance": 10},
     "dead_after is the same on both ends within its tolerance: 10 s and 20 s"),
    (measures(10), PASSES, {"measurement": "dead_after"}, "the test does not measure dead_after on the new end; it measures dead_after"),
    (measures(10), measures(20), {"measurement": "x"}, "the test does not measure x on the old and the new end; it measures dead_after"),
    (sends(udp=1), sends(udp=2), {"change": "x"}, "no such change between the ends: x; there are: more packets are sent: udp"),
    (fails(), sends(udp=2), {"change": "x"}, "the test does not pass on the old end, failed: assert 0 == 1"),
], ids=lambda value: "")
def test_ends_that_do_not_differ_are_said_and_nothing_is_searched(old, new, options, why, tmp_path):
    results = numbered(old, PASSES, new)
    with pytest.raises(NoDifference) as error:
        search(results, tmp_path, **options)
    assert str(error.value) == why
    assert json.loads((tmp_path / NAME).read_text())["steps"].keys() == {"6.12.0-1", "6.12.2-1"}


def test_an_end_that_cannot_be_tried_ends_it_and_is_tried_again_the_next_time(tmp_path):
    with pytest.raises(EndUnusable) as error:
        search(numbered(Unusable("the kernel did not boot"), PASSES, fails()), tmp_path)
    assert str(error.value) == "6.12.0-1: the kernel did not boot"
    found, kernels, _said = search(numbered(PASSES, PASSES, fails()), tmp_path)
    assert found.certain and "6.12.0-1" in kernels.tried


@pytest.mark.parametrize("end", [KeyboardInterrupt(), NoSpaceError("no space left")], ids=["Ctrl-C", "full disk"])
def test_what_was_found_is_kept_when_it_ends_early_and_the_next_goes_on_from_there(end, tmp_path):
    results = numbered(*[PASSES] * 6, *[fails()] * 4)
    with pytest.raises(type(end)):
        search(results | {"6.12.6-1": end}, tmp_path)
    found, kernels, _said = search(results, tmp_path)
    assert found.certain and found.at.new == 6
    assert not {"6.12.0-1", "6.12.9-1", "6.12.4-1"} & {spec for spec, seed in kernels.asked if spec not in ("6.12.5-1", "6.12.6-1")}


def test_machines_are_ended_while_their_threads_still_run(tmp_path):
    """The pool waits for its threads, and these for their machines."""
    began, ended = threading.Event(), threading.Event()

    class Slow(Kernels):
        def attempt(self, spec, seed):
            if spec == "6.12.0-1":
                began.wait(20)
                raise NoSpaceError("full")
            began.set()
            waited.append(ended.wait(20))
            raise KeyboardInterrupt

        def end(self):
            ended.set()

    waited, kernels = [], Slow(numbered(PASSES, fails()))
    with pytest.raises(NoSpaceError):
        Bisection(steps_of(kernels.results), kernels, opened(tmp_path, {}), lambda old, new: None, 2, 1, lambda line: None).run()
    assert waited == [True]


def test_only_the_machines_that_may_be_needed_again_are_kept(tmp_path):
    _found, kernels, _said = search(numbered(*[PASSES] * 5, *[fails()] * 4), tmp_path)
    assert kernels.kept[0] == ["6.12.0-1", "6.12.8-1"]
    assert all(len(specs) == 2 for specs in kernels.kept)


def test_a_result_is_there_at_once_when_it_is_asked_again(tmp_path):
    results = numbered(PASSES, PASSES, fails())
    first, _kernels, _said = search(results, tmp_path, seeds=2)
    again, kernels, _said = search(results, tmp_path, seeds=2)
    assert list(again.lines()) == list(first.lines()) and kernels.asked == []


def test_a_directory_of_another_bisection_is_refused(tmp_path):
    opened(tmp_path, {"test": TEST, "good": "6.1"}).save()
    with pytest.raises(StateError, match=r"is of another bisection \(good\): choose another directory"):
        opened(tmp_path, {"test": TEST, "good": "6.6"})
    (tmp_path / NAME).write_text("[]")
    with pytest.raises(StateError, match="not written by ./kdrift bisect"):
        opened(tmp_path, {})


def test_what_is_left_is_said_with_steps_and_time(tmp_path):
    _found, _kernels, said = search(numbered(*[PASSES] * 5, *[fails()] * 4), tmp_path)
    assert [line for line in said if "left between" in line][0] == (
        "7 kernels left between 6.12.0-1 and 6.12.8-1: about 3 more steps, 0 s")


def test_skipped_is_no_side():
    assert bracket({0: OLD, 1: SKIP, 3: NEW}).skipped == [1]
    assert bracket({0: OLD, 1: SKIP, 3: NEW}).left == [2]
