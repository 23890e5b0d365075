"""What no test looks for and every test would notice: warnings of the kernel."""

from tests.harness.sessions import run


def test_a_warning_fails_the_test_and_other_words_do_not(tmp_path):
    tests = run(tmp_path, "test_complaints.py").tests()
    assert tests["test_is_there_when_the_kernel_says_something"]["outcome"] == "passed"
    assert tests["test_is_there_when_the_kernel_warns"]["outcome"] == "failed"
    assert "the kernel complains:" in tests["test_is_there_when_the_kernel_warns"]["message"]
