"""The commands of README and docs that boot machines or take minutes, typed as they stand: `./kdrift selftest --docs`."""

import pytest

from tests.harness.test_places import verdicts
from tests.harness.typed import type_command, with_machines


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("command", with_machines())
def test_a_command_with_machines_ends_as_documented(command, tmp_path):
    type_command(command, tmp_path)


@pytest.mark.timeout(4 * 3600)
def test_place_and_order_of_the_options_change_no_verdict_of_a_family():
    (status, line, outcomes), other = verdicts("keepalive")
    assert other == (status, line, outcomes)
    assert (status, len(outcomes) > 100) == (0, True)
