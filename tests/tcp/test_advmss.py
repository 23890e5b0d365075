"""advmss of a route: the largest MSS that a host announces to those behind it."""

import pytest

from fixtures.topologies import LAN
from netns import tcp_info, tcp_pair

pytestmark = pytest.mark.topology(LAN)

# Timestamps take 12 bytes of each segment; tcp_mtu_probing=2 starts from tcp_base_mss.
PINNED = {"net.ipv4.tcp_timestamps": 0, "net.ipv4.tcp_mtu_probing": 0}


def test_advmss_of_a_route_caps_the_mss_that_a_new_connection_announces(net, family):
    """RTAX_ADVMSS, below what the MTU allows (1460; IPv6: 1440), is the MSS option of the SYN (tcp_advertise_mss()) and of the SYN-ACK
    (tcp_make_synack()), and the other end goes by it (RFC 9293, 3.7.1)."""
    client, server = net.nodes("client", "server")
    for host, other, advmss in ((client, server, "1000"), (server, client, "1200")):
        host.pin(PINNED)
        host.run(["ip", "route", "add", other.address(family), "dev", host.interfaces[other.role].name, "advmss", advmss])

    with client.capture("tcp") as packets:
        conn, peer = tcp_pair(client, server, family)

    opening = packets.packets().which("with the SYN flag", lambda packet: "S" in packet.flags).exactly(2)
    assert [packet.mss for packet in opening] == [1000, 1200]
    assert (tcp_info(peer).snd_mss, tcp_info(conn).snd_mss) == (1000, 1200)
