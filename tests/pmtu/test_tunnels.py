"""A tunnel between two routers: the sender learns the MTU that the tunnel leaves."""

import socket
from dataclasses import dataclass

import pytest

from fixtures.topologies import LAN, SITES
from netns import deliver, tcp_info, tcp_pair
from netns.hosts import offload, tunnel
from netns.named import NamedList
from netns.packets import pmtu

pytestmark = pytest.mark.topology(SITES)

IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO = 10, 0, 2
IPPROTO_IPIP, IPPROTO_GRE = 4, 47
V4, V6 = socket.AF_INET, socket.AF_INET6
NETWORK = {("client", V4): "192.0.2.0/24", ("client", V6): "2001:db8:1::/64",
           ("server", V4): "203.0.113.0/24", ("server", V6): "2001:db8:4::/64"}


@dataclass(frozen=True)
class Kind:
    """A kind of tunnel: ip-link(8)'s type and options, inner and outer family, and the bytes that it adds."""

    name: str
    inner: socket.AddressFamily
    outer: socket.AddressFamily
    overhead: int
    words: tuple[str, ...] = ()

    def __str__(self):
        return f"{self.name}-{4 if self.inner == V4 else 6}in{4 if self.outer == V4 else 6}"


KINDS = (
    Kind("ipip", V4, V4, 20),
    Kind("sit", V6, V4, 20),
    Kind("gre", V4, V4, 24),
    Kind("gre", V6, V4, 24),
    Kind("ip6tnl", V6, V6, 40, ("mode", "ip6ip6", "encaplimit", "none")),
    Kind("ip6tnl", V4, V6, 40, ("mode", "ipip6", "encaplimit", "none")),
    Kind("ip6gre", V6, V6, 44, ("encaplimit", "none")),
    Kind("ip6gre", V4, V6, 44, ("encaplimit", "none")),
    Kind("vxlan", V4, V4, 50, ("id", "7", "dstport", "4789", "dev", "to-core")),
    Kind("vxlan", V6, V4, 50, ("id", "7", "dstport", "4789", "dev", "to-core")),
    Kind("vxlan", V6, V6, 70, ("id", "7", "dstport", "4789", "dev", "to-core")),
)


def connect_sites(net, kind, *words):
    """Create the tunnel, and a route into it at both ends. `words` are further options."""
    left, right = net.nodes("left", "right")
    ends = {"left": left.address(kind.outer, "core"), "right": right.address(kind.outer, "core")}
    for host, other, far in ((left, "right", "server"), (right, "left", "client")):
        number = 1 if host is left else 2
        options = ("local", ends[host.role], "remote", ends[other], *kind.words, *words)
        network, inside = NETWORK[far, kind.inner], ("10.0.0.{}", 30) if kind.inner == V4 else ("fd00::{}", 64)
        via = f" via {inside[0].format(3 - number)}" if kind.name == "vxlan" else ""
        tunnel.add(host, "tunnel", kind.name, *options, address=f"{inside[0].format(number)}/{inside[1]}",
                   routes=(network + via,))


def fragments(net):
    """The number of fragments that all routers created."""
    return sum(net[role].counter(name) for role in ("left", "core", "right") for name in ("Ip.FragCreates",
                                                                                            "Ip6.FragCreates"))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_sender_learns_the_mtu_of_the_tunnel(net, kind):
    """1500 bytes less the outer headers, then 1400 less these after the core's link became narrower: the core's error
    about the outer packet makes the tunnel endpoint send one (RFC 2003 section 5.1, RFC 2473 section 7). No fragments,
    and all data arrives. VXLAN has no DF over IPv4: there the core fragments."""
    client, server, core = net.nodes("client", "server", "core")
    offload.segment_in_software(client)
    connect_sites(net, kind)
    conn, peer = tcp_pair(client, server, kind.inner)
    with client.capture() as packets:
        deliver(conn, peer, 3000)
    assert {pmtu.announced(error) for error in pmtu.too_big(packets.received())} == {1500 - kind.overhead}
    assert fragments(net) == 0

    core.run(["ip", "link", "set", "dev", "to-right", "mtu", "1400"])
    deliver(conn, peer, 5000)

    if kind.name == "vxlan":
        return
    assert pmtu.path(client, server.address(kind.inner)).mtu == 1400 - kind.overhead
    assert tcp_info(conn).pmtu == 1400 - kind.overhead
    assert fragments(net) == 0


IPIP, GRE = KINDS[0], KINDS[2]


def tunnelled(packets, kind):
    """The outer headers of the tunnel's packets."""
    number = IPPROTO_IPIP if kind is IPIP else IPPROTO_GRE
    return NamedList(f"tunnelled packets among {packets.what}", (
        packet.ip for packet in packets.received() if packet.ip and packet.ip.version == 4 and packet.ip.proto == number))


@pytest.mark.topology(LAN)
@pytest.mark.parametrize("kind, words, df, outer_df", [
    (IPIP, (), False, True), (IPIP, ("nopmtudisc",), True, True), (IPIP, ("nopmtudisc",), False, False),
    (IPIP, ("pmtudisc", "ttl", "77"), False, True), (GRE, ("nopmtudisc", "ignore-df"), True, False),
], ids=["default", "nopmtudisc-df", "nopmtudisc-nodf", "ttl-nodf", "gre-ignore-df"])
def test_outer_header_has_df_as_configured(net, kind, words, df, outer_df):
    """pmtudisc (the default): always. nopmtudisc: as the inner header, unless ignore-df (ip-link(8), RFC 2003 section
    3.1). A configured TTL is used."""
    client, server = net.nodes("client", "server")
    tunnel.add(client, "tunnel", kind.name, "local", client.address(V4), "remote", server.address(V4), *words,
               address="10.0.0.1/30")
    udp = client.socket(V4, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO if df else IP_PMTUDISC_DONT)
    with server.capture() as packets:
        udp.sendto(b"x", ("10.0.0.2", 9))
        packets.until("a tunnelled packet", lambda seen: tunnelled(seen, kind), within=5)

    outer = tunnelled(packets, kind)[0]
    assert str(outer.flags) == ("DF" if outer_df else "")
    if "ttl" in words:
        assert outer.ttl == 77


def test_packets_of_a_tunnel_with_ignore_df_are_fragmented_and_arrive(net):
    """nopmtudisc and ignore-df: the core fragments segments that fill the tunnel, the sender gets no error about it,
    and all data arrives."""
    client, server, core = net.nodes("client", "server", "core")
    offload.segment_in_software(client)
    connect_sites(net, GRE, "nopmtudisc", "ignore-df")
    conn, peer = tcp_pair(client, server, V4)
    core.run(["ip", "link", "set", "dev", "to-right", "mtu", "1400"])
    deliver(conn, peer, 5000)

    assert pmtu.path(client, server.address(V4)).mtu == 1500 - GRE.overhead
    assert core.counter("Ip.FragCreates") > 0
