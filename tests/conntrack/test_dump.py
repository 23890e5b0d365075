"""What `conntrack -L` lists when it is asked for some connections only: the kernel chooses (CTA_FILTER)."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import conntrack

pytestmark = pytest.mark.topology(LAN)

FAMILY = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}
OTHER = {socket.AF_INET: ("192.0.2.11", "192.0.2.12", 24), socket.AF_INET6: ("2001:db8:1::11", "2001:db8:1::12", 64)}


def flow(client, server, source, destination):
    """One datagram that arrived."""
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    with server.socket(family, socket.SOCK_DGRAM) as inbox, client.socket(family, socket.SOCK_DGRAM) as outbox:
        inbox.bind(destination)
        inbox.settimeout(10)
        outbox.bind(source)
        outbox.sendto(b"x", destination)
        inbox.recv(1)


@pytest.mark.parametrize("option", ["--src", "--dst", "--reply-src", "--reply-dst", "--sport", "--dport"])
def test_a_filtered_list_has_the_connections_that_match_and_no_others(net, family, option):
    """By an address or a port of either direction: ctnetlink_filter_match_tuple(). Kernels without "netfilter:
    ctnetlink: fix inverted IPv6 address match in dump filter" list all others by IPv6 addresses."""
    client, server = net.nodes("client", "server")
    here, there = client.address(family), server.address(family)
    other_here, other_there, prefix = OTHER[family]
    nodad = ["nodad"] if family == socket.AF_INET6 else []
    client.run(["ip", "address", "add", f"{other_here}/{prefix}", "dev", "to-server", *nodad])
    server.run(["ip", "address", "add", f"{other_there}/{prefix}", "dev", "to-client", *nodad])
    wanted = {"--src": here, "--dst": there, "--reply-src": there, "--reply-dst": here,
              "--sport": 1001, "--dport": 2001}
    with conntrack.tracking(server) as tracker:
        flow(client, server, (other_here, 1002), (other_there, 2002))
        flow(client, server, (here, 1001), (there, 2001))
        flow(client, server, (other_here, 1003), (other_there, 2003))

        listing = tracker.listing("-f", FAMILY[family], "-p", "udp", option, str(wanted[option]))

    assert [line.split("sport=")[1].split()[0] for line in listing] == ["1001"]
