"""The commands of README and docs that boot no machine, typed as they stand; tests/harness/docs has the others."""

import os

import pytest

from tests.harness.typed import AFTER, LINE, NOT_TYPED, PAGES, QUICK, STATUS, WHOLE_SUITE, needs_root, shown, type_command


def test_every_command_that_is_not_typed_is_listed_and_every_listed_one_is_shown():
    """So that no table keeps what no page says any more."""
    commands = shown()
    assert len(commands) > 40
    listed = {*NOT_TYPED, *QUICK, *AFTER, *(each for before in AFTER.values() for each in before), *WHOLE_SUITE, *STATUS}
    assert listed - commands.keys() == set()
    assert NOT_TYPED.keys() & {*QUICK, *AFTER, *WHOLE_SUITE} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_a_terminal_is_passed_over(page):
    """A command of a program that LINE does not know would be neither typed nor listed."""
    text = page.read_text()
    assert [line for line in text.splitlines() if line.startswith("    $ ") and not LINE.match(line)] == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", sorted(QUICK))
def test_a_quick_command_ends_as_documented(command, tmp_path):
    if needs_root(command) and os.geteuid() != 0:
        pytest.skip("needs root without a password")
    type_command(command, tmp_path)
