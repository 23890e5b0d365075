"""Requests that nobody completes, and a queue with little room."""

import pytest

from fixtures.topologies import LAN
from netns import firewall, listen
from netns.closing import Service, states

pytestmark = pytest.mark.topology(LAN)

BACKLOG = 8


@pytest.mark.virtual_clock("8 s have to pass")
@pytest.mark.parametrize("requests", [BACKLOG // 2, BACKLOG - 1], ids=("half", "nearly-all"))
def test_old_requests_give_way_until_half_of_the_queue_is_free(net, family, check, clock, requests):
    """Room is kept for young ones: where more is taken, a request that is older than a second gets two more SYN-ACKs
    instead of tcp_synack_retries, and is gone after 7 s (reqsk_timer_handler())."""
    client, server = net.nodes("client", "server")
    service = Service(client, server, listen(server, family, BACKLOG))
    with firewall.drop_resets(server, client.address(family)):
        for _ in range(requests):
            check.run(service)
        assert states(server).count("SYN_RECV") == requests
        clock.sleep(8.5)
        assert states(server).count("SYN_RECV") == BACKLOG // 2
