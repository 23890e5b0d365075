"""How certain a regression is: attempts at its test on both kernels."""
import pytest

from report.confirmation import Confirmation, certainty
from report.results import KernelResult, TestResult
from rerun.confirm import Attempt, confirm
from vm.qemu import VMError


class Bench:
    """Fails under these seeds; `steady`: the same each time."""

    def __init__(self, *seeds, steady=True, outcome="failed"):
        self.seeds, self.steady, self.outcome, self.asked = seeds, steady, outcome, []

    def attempt(self, test, seed):
        self.asked.append(seed)
        return Attempt(self.outcome if seed in self.seeds else "passed", "why", seed if self.steady else len(self.asked))


@pytest.mark.parametrize("new, old, text, certain", [
    (Bench(1, 2, 3, 4), Bench(), "fails 4 of 4 on new, 0 of 4 on old", True),
    (Bench(1, 2, 3, 4, outcome="crashed"), Bench(), "fails 4 of 4 on new, 0 of 4 on old", True),
    (Bench(2, 4), Bench(), "fails under 2 of 4 seeds on new: 2, 4; fails under 0 of 4 seeds on old", False),
    (Bench(1, 2, 3, 4), Bench(3), "fails under 4 of 4 seeds on new: 1, 2, 3, 4; fails under 1 of 4 seeds on old: 3", False),
    (Bench(), Bench(), "fails 0 of 4 on new, 0 of 4 on old; it may depend on the tests that ran before it", False),
    (Bench(1, 2, 3, 4, steady=False), Bench(),
     "fails 4 of 4 on new, 0 of 4 on old; not deterministic: two runs with the same seed differed", False),
], ids=["certain", "crash", "some seeds", "old as well", "never again", "not deterministic"])
def test_a_regression_is_certain_if_every_seed_fails_on_the_new_kernel_and_none_on_the_old(new, old, text, certain):
    found = confirm(["test"], new, old, 4)["test"]
    assert (str(found), found.certain) == (text, certain)
    assert (sorted(new.asked), sorted(old.asked)) == ([1, 1, 2, 3, 4], [1, 2, 3, 4])


def test_without_the_old_kernel_only_the_new_one_is_tried():
    new = Bench(1, 2)
    found = confirm(["test"], new, None, 2)["test"]
    assert str(found) == "fails 2 of 2 on new; the old kernel was not tried" and not found.certain


@pytest.mark.parametrize("error", [VMError, OSError])
def test_a_machine_that_cannot_be_restored_is_said_and_costs_no_other_test(error):
    class Broken(Bench):
        def attempt(self, test, seed):
            if test == "broken":
                raise error("restoring the saved state failed: no space\nmore")
            return super().attempt(test, seed)

    found = confirm(["broken", "test"], Broken(1, 2), Bench(), 2, slots=2)
    assert list(map(str, found.values())) == ["not confirmed: restoring the saved state failed: no space",
                                              "fails 2 of 2 on new, 0 of 2 on old"]


def test_what_could_not_be_tried_says_why():
    assert str(Confirmation([], trouble="6.12: no space left")) == "not confirmed: 6.12: no space left"


def test_a_confirmation_survives_its_file():
    found = confirm(["test"], Bench(2), Bench(), 3)["test"]
    assert Confirmation(**found.as_dict()) == found


@pytest.mark.parametrize("seeds, options", [([1, 2, 3], ""), ([2, 3], "--seed 2 "), ([3], "--seed 3 ")], ids=str)
def test_the_command_below_a_regression_has_the_first_seed_that_fails(seeds, options):
    test = TestResult("tests/tcp/test_a.py::test_b[ipv4]", confirmation=Confirmation([1, 2, 3], seeds, []).as_dict())
    assert certainty(test, KernelResult("6.12", "new"))[1] == f"repeat with: ./kdrift pytest --kernel 6.12 {options}'{test.id}'"
