"""What a session prints while its machines run and nobody has a terminal."""

import io
import time

import pytest

from session import progress


@pytest.fixture
def shown(monkeypatch):
    """A session that has run 3 of 10 tests of one kernel, one of them twice, and none of another one, whose states may be set; what it
    prints."""
    monkeypatch.setattr(progress, "QUIET", 0.1)
    stream = io.StringIO()
    states = {"6.1": "running", "6.12": "booting"}
    left = {"6.1": 7, "6.12": 0}
    with progress.Progress(stream, list(states), states.get, left.get, interactive=False) as shown:
        for name, outcome in (("a", "passed"), ("b", "lost"), ("b", "passed"), ("c", "skipped")):
            shown.test_done("6.1", name, outcome)
        yield states, stream


def wait_for(stream, line, times=1):
    deadline = time.monotonic() + 30
    while stream.getvalue().splitlines().count(line) < times:
        assert time.monotonic() < deadline, stream.getvalue()
        time.sleep(0.02)


def test_a_session_that_has_nothing_new_says_how_far_it_is(shown):
    _states, stream = shown
    wait_for(stream, "6.1   3 of 10 tests: 2 passed, 1 skipped")
    wait_for(stream, "6.12  booting (once, to save its state)", 2)


def test_a_change_is_a_line(shown):
    states, stream = shown
    wait_for(stream, "6.12  booting (once, to save its state)")
    states["6.12"] = "running"
    wait_for(stream, "6.12  running")
    assert stream.getvalue().splitlines().count("6.12  running") == 1
