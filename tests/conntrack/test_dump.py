"""What the kernel lists of its connections when it is asked for some only: CTA_FILTER, which conntrack(8) 1.4.7 does not send.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, ctnetlink_filter_match_tuple().
"""

import socket

import pytest

from fixtures.topologies import LAN
from netns.netlink import conntrack
from netns.netlink.conntrack_filter import filtered

pytestmark = pytest.mark.topology(LAN)

FAMILY = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}
OTHER = {socket.AF_INET: ("192.0.2.11", "192.0.2.12", 24), socket.AF_INET6: ("2001:db8:1::11", "2001:db8:1::12", 64)}
FLOWS = {1001: "matching", 1002: "earlier", 1003: "later"}                  # by source port


def flow(client, server, source, destination):
    """One datagram that arrived."""
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    with server.socket(family, socket.SOCK_DGRAM) as inbox, client.socket(family, socket.SOCK_DGRAM) as outbox:
        inbox.bind(destination)
        inbox.settimeout(10)
        outbox.bind(source)
        outbox.sendto(b"x", destination)
        inbox.recv(1)


@pytest.mark.parametrize("side, field", [("original", "source"), ("original", "destination"), ("reply", "source"), ("reply", "destination"),
                                         ("original", "source port"), ("original", "destination port")])
def test_filtered_dump_lists_only_matching_connections(net, family, side, field):
    """By an address or a port of either direction. Kernels without "netfilter: ctnetlink: fix inverted IPv6 address
    match in dump filter" list all others by IPv6 addresses."""
    client, server = net.nodes("client", "server")
    here, there = client.address(family), server.address(family)
    other_here, other_there, prefix = OTHER[family]
    client.add_address(f"{other_here}/{prefix}", "server")
    server.add_address(f"{other_there}/{prefix}", "client")
    source, destination = (here, there) if side == "original" else (there, here)
    value = {"source": source, "destination": destination, "source port": 1001, "destination port": 2001}[field]

    with conntrack.tracking(server) as tracker:
        flow(client, server, (other_here, 1002), (other_there, 2002))
        flow(client, server, (here, 1001), (there, 2001))
        flow(client, server, (other_here, 1003), (other_there, 2003))

        assert len(tracker.listing("-f", FAMILY[family], "-p", "udp")) == 3
        listed = [FLOWS[number] for number in filtered(server, family, side, {field: value})]

    assert listed == ["matching"]
