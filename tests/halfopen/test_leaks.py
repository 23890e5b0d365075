"""Half-open checks leave nothing in the kernel's memory."""

import pytest

from fixtures.topologies import LAN
from netns.closing import fence

pytestmark = pytest.mark.topology(LAN)
TIMES = 20


def test_what_a_check_needs_is_given_back(service, check, given_back):
    """The client's socket, and the server's request (inet_csk_reqsk_queue_drop())."""
    def use():
        for _ in range(TIMES):
            check.run(service)
        fence(service.client, service.server, service.address[0])

    given_back(use, TIMES)
