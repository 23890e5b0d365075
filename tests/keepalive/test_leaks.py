"""A connection that keepalive has ended is gone from the kernel's memory as well."""

import errno

import pytest

from fixtures.topologies import LAN
from netns import firewall, keepalive, tcp_pair, vanish, wait_for_error

pytestmark = pytest.mark.topology(LAN)
TIMES = 20


def test_a_connection_whose_peer_vanished_is_given_back(net, family, given_back):
    """Socket, timers and held segments: tcp_write_err(), tcp_done()."""
    client, server = net.nodes("client", "server")

    def use():
        pairs = [tcp_pair(client, server, family) for _ in range(TIMES)]
        with firewall.drop(server, client.address(family)):
            for conn, _peer in pairs:
                keepalive(conn, idle=1, interval=1, count=1)
            assert {wait_for_error(conn, within=20) for conn, _peer in pairs} == {errno.ETIMEDOUT}
        for conn, peer in pairs:
            conn.close()
            vanish(peer)

    given_back(use, TIMES)
