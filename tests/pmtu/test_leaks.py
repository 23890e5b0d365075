"""What a path MTU was learnt with is given back."""

import pytest

from fixtures.topologies import NARROW
from netns import deliver, tcp_pair, vanish

pytestmark = pytest.mark.topology(NARROW)
TIMES = 20


def test_connections_over_a_narrow_path_are_given_back(net, family, given_back):
    """Segments that were too large are dropped with an ICMP error, and sent again smaller."""
    client, server = net.nodes("client", "server")

    def use():
        for _ in range(TIMES):
            client.run(["ip", "route", "flush", "cache"])
            conn, peer = tcp_pair(client, server, family)
            deliver(conn, peer, 3000)
            vanish(conn)
            vanish(peer)

    given_back(use, TIMES)
