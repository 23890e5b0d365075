"""What `./kdrift bench` runs in a machine."""
import time

import pytest


def test_nothing() -> None:
    """The first test of a session: what is timed is how soon it runs."""


@pytest.mark.virtual_clock("lets an hour pass")
def test_idle_hour() -> None:
    time.sleep(3600)
