"""What a test leaves behind fails that test, and meets no other."""

import pytest

from tests.harness.sessions import KERNEL, one_line, run

FAILS = {"test_leaves_a_process_on_a_host", "test_leaves_a_descriptor_with_a_process", "test_leaves_a_warning", "test_times_out",
         "test_fails_with_a_socket_of_its_own", "test_fails_to_give_back"}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return run(tmp_path_factory.mktemp("remains"), "test_remains.py")


def test_the_test_fails_and_those_after_it_do_not(session):
    """They see for themselves what their machine was used for. None is run twice."""
    tests = session.tests()
    assert len(tests) == 12
    assert {name for name, test in tests.items() if test["outcome"] == "failed"} == FAILS
    assert {test["outcome"] for name, test in tests.items() if name not in FAILS} == {"passed"}
    assert all(test["attempts"] == [] for test in tests.values())


@pytest.mark.parametrize("name", ["test_leaves_a_process_on_a_host", "test_leaves_a_descriptor_with_a_process"])
def test_the_message_says_what_is_left_of_which_hosts(session, name):
    message = session.tests()[name]["message"]
    assert "1 network namespace still exists 30" in message.splitlines()[0]
    assert "s after the end of the test with hosts client, server\nheld by process " in message
    assert message.endswith(" (sleep)")


def test_a_warning_of_the_kernel_is_told(session):
    """From its first line on, by which a known issue is recognised."""
    title, warning, after = session.tests()["test_leaves_a_warning"]["message"].splitlines()
    assert title.endswith("the kernel complains:")
    assert " WARNING: CPU: 0 " in warning and after.endswith("] something else")


def test_restores_are_counted(session):
    """The last test leaves something as well, but nobody needs the machine any more."""
    one_line(session.output, f"{KERNEL}: the machine was restored 4 times, ")
