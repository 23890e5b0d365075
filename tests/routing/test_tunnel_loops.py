"""Tunnels that route into each other: IP_TUNNEL_RECURSION_LIMIT, include/net/ip_tunnels.h."""

import socket

import pytest

from fixtures.topologies import LAN
from netns.hosts import tunnel

pytestmark = pytest.mark.topology(LAN)

LIMIT = 5
ENDS = {socket.AF_INET: ("198.51.100.1", "203.0.113.1"), socket.AF_INET6: ("2001:db8:a::1", "2001:db8:b::1")}
BEHIND = {socket.AF_INET: "198.51.100.99", socket.AF_INET6: "2001:db8:c::1"}
KINDS = {
    "ipip": (socket.AF_INET, ["nopmtudisc"]),
    "sit": (socket.AF_INET, ["nopmtudisc"]),
    "gre": (socket.AF_INET, ["nopmtudisc"]),
    "ip6tnl": (socket.AF_INET6, ["mode", "any", "encaplimit", "none"]),
    "ip6gre": (socket.AF_INET6, ["encaplimit", "none"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_packet_in_a_tunnel_loop_is_dropped_after_at_most_5_headers(net, kind, measure):
    """Each tunnel's packets are routed into the other tunnel. Kernels without "net: add xmit recursion limit to tunnel
    xmit functions" go on until the stack is in danger."""
    client = net["client"]
    family, options = KINDS[kind]
    ends = ENDS[family]
    local = client.address(family)
    for name, remote in (("there", ends[0]), ("back", ends[1])):
        tunnel.add(client, name, kind, "local", local, "remote", remote, *options)
    client.run(["ip", "-batch", "-"], stdin=f"route add {ends[0]} dev back\nroute add {ends[1]} dev there\n")
    client.run(["ip", "route", "add", BEHIND[family], "dev", "there"])

    with client.capture() as packets, client.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (BEHIND[family], 4000))

    headers = len([packet for packet in packets.sent() if packet.interface in ("there", "back")])
    assert 3 <= measure(f"tunnel_loop.{kind}.headers", headers, "headers", tolerance=0) <= LIMIT
