"""Two equal-cost paths to one destination, one of them narrow."""

import socket

import pytest

from fixtures.topologies import SERVICE
from netns import Link, Route, Topology
from netns.packets import icmp, pmtu

DIAMOND = Topology(
    links=(
        Link("client", "upper", ipv4="192.0.2.0/28", ipv6="2001:db8:1::/64"),
        Link("client", "lower", ipv4="192.0.2.16/28", ipv6="2001:db8:2::/64"),
        Link("server", "upper", ipv4="198.51.100.0/28", ipv6="2001:db8:3::/64"),
        Link("server", "lower", ipv4="198.51.100.16/28", ipv6="2001:db8:4::/64"),
    ),
    routes=(
        Route("upper", via="server"), Route("lower", via="server"), Route("server", via="upper"),
        *(Route("client", via=("upper", "lower"), to=address) for address in SERVICE.values()),
    ),
    routers=("upper", "lower"),
)
pytestmark = pytest.mark.topology(DIAMOND)

FLOWS = 12
# On no link: a kernel may prefer the path that has the source address.
OWN = {socket.AF_INET: "203.0.113.77", socket.AF_INET6: "2001:db8:5::77"}


@pytest.fixture
def both_paths(net, family):
    """The client's route to a service address uses both routers; the hash covers ports and addresses."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.fib_multipath_hash_policy": 1, "net.ipv6.fib_multipath_hash_policy": 1})
    server.add_address(SERVICE[family])
    return client


def test_icmp_error_about_a_multipath_flow_creates_an_exception_that_the_flow_uses(net, family, both_paths):
    """The kernel stores the MTU for the path of the quoted packet, or for both paths (RFC 1191, 3; RFC 8201, 4). Chance chooses the path
    of each flow, so of several that learn on one path only some would."""
    client = both_paths
    source = OWN[family]
    client.add_address(source)
    net["upper"].run(["ip", "route", "add", source, "via", client.address(family)])
    learned, used = [], set()
    for _flow in range(FLOWS):
        with client.socket(family, socket.SOCK_DGRAM) as udp:
            udp.bind((source, 0))
            port = udp.getsockname()[1]
            used.add(pmtu.path(client, SERVICE[family], "from", source, "ipproto", "udp", "sport", str(port), "dport", "9").via)
            pmtu.of_new_peer(udp, SERVICE[family])
            icmp.send_too_big(net["upper"], client, 1300, icmp.udp_quote(source, port, SERVICE[family], 9))
            learned.append(pmtu.of_new_peer(udp, SERVICE[family]))

    assert len(used) == 2
    # The number of those that do not learn varies.
    assert set(learned) == {1300}
