"""How long an entry is kept that has seen no answer: nf_conntrack_tcp_timeout_syn_sent, nf_conntrack-sysctl.rst."""

import pytest

from fixtures.topologies import ROUTED
from netns.hosts import firewall
from netns.netlink import conntrack
from netns.packets import segment

pytestmark = pytest.mark.topology(ROUTED)


def test_a_syn_that_is_sent_again_does_not_keep_an_unanswered_connection(net, family, clock):
    """The time runs from the first one, or nobody else could have the address and port as long as somebody tries
    (nf_conntrack_tcp_packet()): of 20 s two and a half are over."""
    client, server, router = net.nodes("client", "server", "router")
    ends = (client.address(family), 40000), (server.address(family), 9)
    with conntrack.tracking(router) as tracker, firewall.drop(server, client.address(family)), \
            server.capture("tcp") as packets:
        tracker.pin(tcp_timeout_syn_sent=20)
        segment.send(client, *ends, "S", seq=1000)
        clock.sleep(2.5)
        segment.send(client, *ends, "S", seq=1000)

        entry = tracker.entries(family).only()

    assert [packet.flags for packet in packets.received()] == ["S", "S"]
    assert (entry.state, entry.timeout) == ("SYN_SENT", 17)
