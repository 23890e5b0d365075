"""A kernel that crashes or hangs under a test: the outcome says so, and the other tests and kernels go on."""

import pytest

from tests.harness.sessions import CASES, KERNEL, OTHER, one_line, run

AROUND = {"test_before": "passed", "test_after": "passed"}
PANIC = "Kernel panic - not syncing: sysrq triggered crash"
DEADLINE = 8                                # seconds; a test before it takes one or two


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("crashed"), "test_crash.py", "-v", kernels=[KERNEL, OTHER])


def test_panic_is_a_crash_of_the_kernel(crashed):
    test = crashed.tests()["test_crashes_the_kernel"]
    assert test["outcome"] == "crashed"
    assert test["message"].splitlines()[0].startswith("the kernel crashed: [")
    assert PANIC in test["message"].splitlines()[0]
    assert crashed.status == 1


def test_crashed_test_is_tried_once_more(crashed):
    """In a restored machine, and both attempts are kept."""
    assert crashed.tests()["test_crashes_the_kernel"]["attempts"] == ["crashed"]
    assert crashed.output.count(f"{KERNEL}  crashed  {CASES}/test_crash.py::test_crashes_the_kernel") == 2


def test_panic_shows_the_consoles_last_words(crashed):
    """Once, with the backtrace, though it happened twice."""
    one_line(crashed.output, f"CRASHED {CASES}/test_crash.py::test_crashes_the_kernel on {KERNEL} twice - the kernel crashed: [", PANIC)
    one_line(crashed.output, "]  sysrq_handle_crash+0x")


def test_other_tests_and_kernels_go_on_after_a_crash(crashed):
    assert crashed.outcomes() == {**AROUND, "test_crashes_the_kernel": "crashed"}
    assert crashed.outcomes(OTHER) == {**AROUND, "test_crashes_the_kernel": "passed"}
    one_line(crashed.output, f"{KERNEL}: 2 passed, 1 crashed (6.12.")


@pytest.fixture(scope="module")
def hanging(tmp_path_factory):
    return run(tmp_path_factory.mktemp("hanging"), "test_hang.py", "-v", f"--deadline={DEADLINE}")


def test_hang_is_stopped_by_the_deadline(hanging):
    test = hanging.tests()["test_hangs"]
    assert (test["outcome"], test["attempts"]) == ("lost", ["lost"])
    assert test["message"].splitlines()[0] == f"the machine was lost: hang: no output from the guest for {DEADLINE} s"
    assert hanging.status == 3


def test_hang_says_where_the_guest_was(hanging):
    """An NMI makes the kernel print what it was running: here, Python."""
    message = hanging.tests()["test_hangs"]["message"]
    assert "backtrace after an injected NMI:" in message.splitlines()
    one_line(message, "Comm: python3")
    one_line(hanging.output, f"LOST {CASES}/test_hang.py::test_hangs on {KERNEL} twice - ", f"no output from the guest for {DEADLINE} s")


def test_other_tests_go_on_after_a_hang(hanging):
    assert hanging.outcomes() == {**AROUND, "test_hangs": "lost"}
