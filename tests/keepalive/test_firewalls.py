"""Keepalive finds a peer dead behind a firewall or an unplugged cable, whatever drops the packets."""

import errno

import pytest

from fixtures.topologies import LAN
from netns import eventually, keepalive, tcp_pair, wait_for_error
from netns.hosts import firewall

pytestmark = pytest.mark.topology(LAN)


def lose(way, client, server, family):
    if way == "link-down":
        return firewall.carrier_lost(client, server)
    return firewall.drop(server, client.address(family), way)


@pytest.mark.parametrize("way", [*firewall.FLAVOURS, "link-down"])
def test_peer_behind_a_dropping_firewall_or_a_down_link_is_found_dead(net, family, way):
    """The probe and the final RST are dropped and counted; the application gets ETIMEDOUT."""
    client, server = net.nodes("client", "server")
    conn, _peer = tcp_pair(client, server, family)
    with lose(way, client, server, family) as lost:
        keepalive(conn, idle=1, interval=1, count=1)
        error = wait_for_error(conn, within=20)
        eventually("packets that the firewall dropped", lost.packets, 2, within=5)

    assert error == errno.ETIMEDOUT
