"""Incomplete requests in a SYN queue with little room."""

import pytest

from fixtures.topologies import LAN
from netns import listen
from netns.hosts import firewall
from netns.traffic.closing import Service, states, syn_acks

pytestmark = pytest.mark.topology(LAN)

BACKLOG = 8


def remaining(requests, backlog, net, family, check, clock):
    """How many of `requests` are left when those given up early are gone."""
    client, server = net.nodes("client", "server")
    service = Service(client, server, listen(server, family, backlog))
    with firewall.drop_resets(server, client.address(family)):
        for _ in range(requests):
            check.run(service)
        assert states(server).count("SYN_RECV") == requests
        clock.sleep(8.5)
        return states(server).count("SYN_RECV")


@pytest.mark.virtual_clock("waits 8 s")
@pytest.mark.parametrize("requests", [BACKLOG // 2, BACKLOG - 1], ids=("half", "nearly-all"))
def test_old_requests_expire_early_until_half_of_the_syn_queue_is_free(net, family, check, clock, requests):
    """Half is kept for young ones: in a fuller queue a request older than a second gets two more SYN-ACKs instead of
    tcp_synack_retries, and is gone after 7 s (reqsk_timer_handler())."""
    assert remaining(requests, BACKLOG, net, family, check, clock) == BACKLOG // 2


@pytest.mark.virtual_clock("waits 8 s")
def test_full_syn_queue_of_2_expires_no_request_early(net, family, check, clock):
    """Up to four requests get all their retries, however small the backlog."""
    assert remaining(2, 2, net, family, check, clock) == 2


@pytest.mark.virtual_clock("waits 16 s")
def test_old_requests_keep_their_retries_while_most_are_young(net, family, check, clock):
    """A request is young until a second after its first SYN-ACK. Two old ones of five get the fourth retransmission of
    five, 8 s after the third, as in an empty queue."""
    client, server = net.nodes("client", "server")
    service = Service(client, server, listen(server, family, BACKLOG))
    with firewall.drop_resets(server, client.address(family)), server.capture("tcp") as packets:
        for _ in range(2):
            check.run(service)
        packets.until("8 SYN-ACKs", lambda seen: len(syn_acks(seen)) == 2 * (1 + 3), within=9.5)
        clock.sleep(7.6)
        for _ in range(3):
            check.run(service)
        # The old ones' timers expire 8 to 8.5 s after the third retransmission, the young ones' after 8.6 s.
        clock.sleep(0.95)

        assert states(server).count("SYN_RECV") == 5
        assert len(syn_acks(packets)) == 2 * (1 + 4) + 3
