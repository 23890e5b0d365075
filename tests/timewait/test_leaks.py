"""A connection in TIME_WAIT takes memory for a minute, and none afterwards."""

import pytest

from fixtures.topologies import LAN
from netns import eventually
from netns.closing import time_waits

pytestmark = pytest.mark.topology(LAN)
TIMES = 20


@pytest.mark.virtual_clock("TIME_WAIT lasts a minute")
@pytest.mark.parametrize("first", ["client", "server"])
def test_what_time_wait_needs_is_given_back(service, given_back, clock, first):
    """The small socket that stands for the connection, and its place in the table of ports (inet_twsk_kill())."""
    def use():
        for _ in range(TIMES):
            early, late = service.connect() if first == "client" else reversed(service.connect())
            early.close()
            assert late.recv(1) == b""
            late.close()
        clock.sleep(60)
        eventually(lambda: (time_waits(service.client), time_waits(service.server)), (0, 0), within=10)

    given_back(use, TIMES)
