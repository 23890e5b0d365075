"""Counters of connections by state."""

import pytest

from fixtures.topologies import LAN
from netns import eventually, tcp_info, tcp_pair

pytestmark = pytest.mark.topology(LAN)


def test_close_wait_connection_is_counted_in_currestab(net, family):
    """tcpCurrEstab is the number of connections in ESTABLISHED or CLOSE-WAIT (RFC 4022)."""
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    assert server.counter("Tcp.CurrEstab") == 1

    conn.close()

    eventually("state of the server's connection", lambda: tcp_info(peer).state, "CLOSE_WAIT", within=5)
    assert server.counter("Tcp.CurrEstab") == 1
    peer.close()
    server.await_counter("Tcp.CurrEstab", 0, within=5)
