"""IPsec: the path MTU that ESP leaves of a link (RFC 4301 section 8)."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import Link, Route, Topology, deliver, tcp_info, tcp_pair
from netns.netlink import xfrm
from netns.packets import pmtu

GATEWAYS = Topology(
    links=(
        Link("client", "left", ipv4="192.0.2.0/24", ipv6="2001:db8:1::/64"),
        Link("left", "right", ipv4="198.51.100.0/24", ipv6="2001:db8:2::/64"),
        Link("server", "right", ipv4="203.0.113.0/24", ipv6="2001:db8:3::/64"),
    ),
    routes=(
        Route("client", via="left"), Route("left", via="right"),
        Route("server", via="right"), Route("right", via="left"),
    ),
    routers=("left", "right"),
)
NETWORK = {("client", socket.AF_INET): "192.0.2.0/24", ("client", socket.AF_INET6): "2001:db8:1::/64",
           ("server", socket.AF_INET): "203.0.113.0/24", ("server", socket.AF_INET6): "2001:db8:3::/64"}
# ESP with AES-GCM: 8 bytes of header, 8 of IV, 16 of ICV, and a trailer of 2, padded to 4 (RFC 4303, RFC 4106).
HEADER, IV, ICV, TRAILER = 8, 8, 16, 2


def room_inside_esp(family, tunnel):
    """Bytes of the largest packet before ESP: the inner one in tunnel mode, the plain one in transport mode."""
    ip = 20 if family == socket.AF_INET else 40
    room = (1500 - ip - HEADER - IV - ICV) // 4 * 4 - TRAILER
    return room if tunnel else room + ip


def protect(near, far, ends, selectors, mode):
    """ESP both ways between two hosts: `ends` are their addresses, `selectors` the prefixes behind them."""
    spis = {near: 0x1001, far: 0x1002}
    for host in (near, far):
        other = far if host is near else near
        out = xfrm.Template(ends[host], ends[other], mode=mode)
        back = xfrm.Template(ends[other], ends[host], mode=mode)
        ours, theirs = selectors[host], selectors[other]
        items = [xfrm.SA(ends[host], ends[other], spi=spis[host], mode=mode),
                 xfrm.SA(ends[other], ends[host], spi=spis[other], mode=mode),
                 xfrm.Policy(xfrm.Selector(ours, theirs, protocol=socket.IPPROTO_TCP), out, direction="out"),
                 xfrm.Policy(xfrm.Selector(theirs, ours, protocol=socket.IPPROTO_TCP), back, direction="in")]
        if mode == "tunnel":
            items.append(xfrm.Policy(xfrm.Selector(theirs, ours, protocol=socket.IPPROTO_TCP), back, direction="fwd"))
        xfrm.add(host, *items)


@pytest.mark.topology(GATEWAYS)
def test_sender_behind_a_gateway_learns_the_mtu_of_the_esp_tunnel(net, family):
    """The gateway answers oversized packets with the tunnel's inner MTU (xfrm4_tunnel_check_size()); no ESP packet
    exceeds 1500 bytes."""
    client, server, left, right = net.nodes("client", "server", "left", "right")
    protect(left, right, {left: left.address(family, "right"), right: right.address(family, "left")},
            {left: NETWORK["client", family], right: NETWORK["server", family]}, "tunnel")
    conn, peer = tcp_pair(client, server, family)
    with client.capture() as packets, right.capture("esp") as protected:
        deliver(conn, peer, 5000)

    expected = room_inside_esp(family, tunnel=True)
    assert {pmtu.announced(error) for error in pmtu.too_big(packets.received())} == {expected}
    assert pmtu.path(client, server.address(family)).mtu == expected
    assert 1480 <= max(packet.frame.length - 14 for packet in protected.received().some()) <= 1500
    assert client.counter("TcpExt.TCPTimeouts") == 0


@pytest.mark.topology(LAN)
def test_tcp_over_transport_mode_leaves_room_for_esp(net, family):
    """TCP sizes its segments for ESP: no error, no fragment, and ESP packets of 1500 bytes at most."""
    client, server = net.nodes("client", "server")
    addresses = {host: host.address(family) for host in (client, server)}
    protect(client, server, addresses, addresses, "transport")
    conn, peer = tcp_pair(client, server, family)
    with client.capture() as packets:
        deliver(conn, peer, 5000)

    assert tcp_info(conn).pmtu == room_inside_esp(family, tunnel=False)
    assert pmtu.too_big(packets) == []
    protected = packets.sent().which("in ESP", lambda packet: packet.protocol == "esp").some()
    assert 1480 <= max(packet.frame.length - 14 for packet in protected) <= 1500
    assert client.counter("Ip.FragCreates" if family == socket.AF_INET else "Ip6.FragCreates") == 0
