"""The timeout of an entry without a reply: nf_conntrack_tcp_timeout_syn_sent, nf_conntrack-sysctl.rst."""

import pytest

from fixtures.topologies import ROUTED
from netns.hosts import firewall
from netns.netlink import conntrack
from netns.packets import segment

pytestmark = pytest.mark.topology(ROUTED)


def test_retransmitted_syn_does_not_extend_an_unanswered_conntrack_entry(net, family, clock):
    """The timeout runs from the first SYN, or a client that retries would block the address and port for others
    (nf_conntrack_tcp_packet()): 2.5 s of 20 s are over."""
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
