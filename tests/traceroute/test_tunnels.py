"""A tunnel and a director on the path: which hops answer, and which are hidden."""

import socket

import pytest

from fixtures.icmp_errors import ECHO_REPLY, HOST_UNREACHABLE, PORT_UNREACHABLE, TIME_EXCEEDED, TOO_BIG, V4
from fixtures.topologies import DIRECTED, SITES
from netns.hosts import ipvs, tunnel
from netns.packets.probe import KINDS, probe

NETWORKS = {V4: ("192.0.2.0/24", "203.0.113.0/24"), socket.AF_INET6: ("2001:db8:1::/64", "2001:db8:4::/64")}
INSIDE = {V4: "10.0.0.{}/30", socket.AF_INET6: "fd00::{}/64"}


@pytest.fixture
def tunnelled(net, family):
    """tunnelled(ttl): IPIP (ip6tnl for IPv6) between left and right with this TTL in the outer header, or "inherit"."""
    left, right = net.nodes("left", "right")

    def connect(ttl):
        kind, words = ("ipip", ()) if family == V4 else ("ip6tnl", ("mode", "ip6ip6", "encaplimit", "none"))
        for number, (host, other, network) in enumerate(((left, right, 1), (right, left, 0)), start=1):
            tunnel.add(host, "tunnel", kind, "local", host.address(family, "core"),
                       "remote", other.address(family, "core"), "ttl", ttl, *words,
                       address=INSIDE[family].format(number), routes=(NETWORKS[family][network],))

    return connect


@pytest.mark.topology(SITES)
@pytest.mark.parametrize("kind", KINDS)
def test_tunnel_with_a_fixed_ttl_is_one_hop(net, family, tracer, tunnelled, kind):
    """Left, right (its end of the tunnel), server: the routers between left and right do not count (RFC 2003, 3.1: the
    inner TTL is decremented once)."""
    tunnelled("64")
    server = net["server"]
    path = [tracer.probe(kind, server.address(family), ttl)[1] for ttl in (1, 2, 3)]

    end = {"udp": PORT_UNREACHABLE[family], "tcp": "RA", "icmp": ECHO_REPLY[family]}[kind]
    assert [(hop.source, hop.kind) for hop in path] == [
        (net["left"].address(family, "client"), TIME_EXCEEDED[family]),
        (INSIDE[family].format(2).split("/")[0], TIME_EXCEEDED[family]),
        (server.address(family), end),
    ]


@pytest.mark.topology(SITES)
@pytest.mark.parametrize("family", [V4], ids=["ipv4"])
@pytest.mark.parametrize("kind", KINDS)
def test_tunnel_that_inherits_the_ttl_leaves_one_hop_unanswered(net, family, tracer, tunnelled, kind):
    """The outer header expires in the core, whose error ends at left (ipip_err() with ttl 0): no answer for TTL 2, and
    no destination unreachable from left; the server answers at 3."""
    tunnelled("inherit")
    server, core, left = net.nodes("server", "core", "left")

    assert tracer.unanswered(kind, server.address(family), 2)
    assert core.counter("Icmp.OutTimeExcds") == 1
    assert left.counter("Icmp.OutDestUnreachs") == 0
    assert tracer.probe(kind, server.address(family), 3)[1].source == server.address(family)


@pytest.mark.topology(SITES)
@pytest.mark.parametrize("family", [V4], ids=["ipv4"])
def test_tunnel_with_too_small_a_ttl_returns_host_unreachable(net, family, tracer, tunnelled):
    """The core's time exceeded reaches left; left answers the client's next packet with host unreachable (ipip_err(),
    IPTUNNEL_ERR_TIMEO)."""
    tunnelled("1")
    client, left, server = net.nodes("client", "left", "server")
    probe(client, "udp", client.address(family), server.address(family), ttl=30)
    left.await_counter("Icmp.InTimeExcds", 1, within=5)

    answer = tracer.probe("udp", server.address(family), 30)[1]

    assert (answer.source, answer.kind) == (left.address(family, "client"), HOST_UNREACHABLE[family])


@pytest.fixture
def directed(net, family):
    """The virtual address; the director tunnels its port 80 to server1, which has no listener."""
    address = "203.0.113.1" if family == V4 else "2001:db8:ff::1"
    director, server = net.nodes("director", "server1")
    ipvs.real_server(server, address)
    ipvs.tunnel_service(director, address, 80, [server.address(family)])
    return address


@pytest.mark.topology(DIRECTED)
def test_director_is_a_hop_with_the_virtual_address(net, family, tracer, directed):
    """First the router. Then the director, which decrements the TTL and answers from the probe's destination (its own
    address). The real server answers from that address two hops later (decrement_ttl(), ip_vs_xmit.c)."""
    path = [tracer.probe("tcp", directed, ttl, sport=33000 + ttl, dport=80)[1] for ttl in (1, 2, 4)]

    assert [(hop.source, hop.kind) for hop in path] == [
        (net["router"].address(family, "client"), TIME_EXCEEDED[family]),
        (directed, TIME_EXCEEDED[family]),
        (directed, "RA"),
    ]


@pytest.mark.topology(DIRECTED)
def test_director_passes_on_time_exceeded_from_the_tunnel_over_ipv4_only(net, family, tracer, directed):
    """The outer header gets the remaining TTL, and the router behind sends time exceeded to the director. Over IPv4 the
    director sends its own, about the client's probe (ip_vs_in_icmp()); over IPv6 the hop gives no answer."""
    if family != V4:
        assert tracer.unanswered("tcp", directed, 3, then=1, dport=80)
        assert net["director"].counter("Icmp6.InTimeExcds") == 1
        return

    sent, hop = tracer.probe("tcp", directed, 3, sport=33003, dport=80)

    assert (hop.source, hop.kind) == (directed, TIME_EXCEEDED[family])
    assert hop.quoted[20:] == sent


@pytest.mark.topology(DIRECTED)
def test_ttl_is_checked_before_the_tunnel_mtu(net, family, tracer, directed):
    """1500 bytes do not fit the tunnel: with TTL 2 the director sends time exceeded, with TTL 64 too big."""
    _sent, expired = tracer.probe("tcp", directed, 2, sport=33005, dport=80, size=1500)
    _sent, too_big = tracer.probe("tcp", directed, 64, sport=33006, dport=80, size=1500)

    assert (expired.source, expired.kind) == (directed, TIME_EXCEEDED[family])
    assert too_big.kind == TOO_BIG[family]
