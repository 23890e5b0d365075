"""What no test looks for and every test would notice: objects left behind, and warnings of the kernel."""

import pytest

from tests.harness.sessions import run


@pytest.fixture(scope="module")
def tests(tmp_path_factory):
    return run(tmp_path_factory.mktemp("left"), "test_left_behind.py").tests()


def test_objects_that_stay_fail_the_test(tests):
    assert tests["test_closes_its_sockets"]["outcome"] == "passed"
    assert tests["test_keeps_its_sockets"]["outcome"] == "failed"
    assert "left behind by 20 uses: {" in tests["test_keeps_its_sockets"]["message"]
    assert "TCP" in tests["test_keeps_its_sockets"]["message"]


def test_a_warning_fails_the_test_and_other_words_do_not(tests):
    assert tests["test_is_there_when_the_kernel_says_something"]["outcome"] == "passed"
    assert tests["test_is_there_when_the_kernel_warns"]["outcome"] == "failed"
    assert "the kernel complains:" in tests["test_is_there_when_the_kernel_warns"]["message"]
