"""ICMP redirects and their expiry: RFC 1122 (3.2.2.2), RFC 4861 (8)."""

import socket

import pytest

from fixtures.topologies import ROUTED
from netns import deliver, tcp_pair
from netns.packets import icmp, pmtu

pytestmark = pytest.mark.topology(ROUTED)

V4, V6 = socket.AF_INET, socket.AF_INET6
BETTER = {V4: "192.0.2.77", V6: "fe80::77"}
PREFIX = {V4: 24, V6: 64}
EXPERIMENT = 253                            # an IP protocol for experiments: RFC 3692
FLUSH = "net.ipv6.route.flush"


@pytest.fixture(autouse=True)
def gateways(net):
    """The client accepts redirects and reaches the server by the router's link-local address; the router has another
    address, too."""
    client, server, router = net.nodes("client", "server", "router")
    client.pin({f"net.ipv4.conf.{each}.{name}": value for each in ("all", "to-router")
                for name, value in (("accept_redirects", 1), ("secure_redirects", 0))})
    client.pin({"net.ipv6.conf.to-router.accept_redirects": 1, "net.ipv6.conf.all.forwarding": 0})
    at_router = router.interfaces["client"]
    commands = [f"route add {server.address(V6)}/128 via {icmp.link_local(at_router)} dev to-router"]
    commands += [f"neighbour replace {each} lladdr {at_router.mac} dev to-router router" for each in BETTER.values()]
    client.run(["ip", "-batch", "-"], stdin="\n".join(commands) + "\n")
    for family, address in BETTER.items():
        router.add_address(f"{address}/{PREFIX[family]}", "client")


def quote_of(net, family, kind):
    """The quote of a packet of this kind from the client to the server, whose socket stays open."""
    client, server = net.nodes("client", "server")
    with client.capture() as packets:
        if kind == "tcp":
            conn, peer = tcp_pair(client, server, family)
            deliver(conn, peer, 1)
        else:
            sock = client.socket(family, socket.SOCK_DGRAM) if kind == "udp" else \
                client.socket(family, socket.SOCK_RAW, EXPERIMENT)
            sock.connect((server.address(family), 4000 if kind == "udp" else 0))
            sock.send(bytes(8))
    last = packets.sent().which("to server", lambda packet: packet.ip and packet.ip.dst == server.address(family))[-1]
    return icmp.quote_next(last) if kind == "tcp" else icmp.quote(last)


@pytest.mark.parametrize("kind", ["udp", "raw", "tcp"])
def test_redirect_about_a_udp_raw_or_tcp_packet_is_followed(net, family, kind):
    """The route to this destination uses the better router. Kernels without "ipv6: Fix redirect exception creation for
    UDP/RAW sockets" follow only redirects about TCP."""
    client, server, router = net.nodes("client", "server", "router")

    icmp.send_redirect(router, client, BETTER[family], quote_of(net, family, kind))

    assert pmtu.path(client, server.address(family)).via == BETTER[family]


@pytest.mark.virtual_clock("waits 300 s, until a redirect expires")
def test_ipv4_redirect_expires_after_300_seconds(net, clock):
    """net.ipv4.route.gc_timeout: an older exception is ignored (find_exception())."""
    client, server, router = net.nodes("client", "server", "router")
    icmp.send_redirect(router, client, BETTER[V4], quote_of(net, V4, "udp"))
    clock.sleep(295)
    kept = pmtu.path(client, server.address(V4)).via
    clock.sleep(10)

    assert (kept, pmtu.path(client, server.address(V4)).via) == (BETTER[V4], router.address(V4, "client"))


@pytest.mark.parametrize("before, now, forgotten", [(100000, 1, True), (1, 100000, False)])
def test_ipv6_route_flush_uses_the_delay_written_to_it(net, clock, before, now, forgotten):
    """`net.ipv6.route.flush` removes redirects of this age in jiffies: ipv6_sysctl_rtcache_flush(). Kernels without
    "net/ipv6: Fix the RT cache flush via sysctl using a previous delay" use the value written before."""
    client, server, router = net.nodes("client", "server", "router")
    client.pin({FLUSH: before})
    icmp.send_redirect(router, client, BETTER[V6], quote_of(net, V6, "tcp"))
    assert pmtu.path(client, server.address(V6)).via == BETTER[V6]

    clock.sleep(1)
    client.pin({FLUSH: now})

    via = pmtu.path(client, server.address(V6)).via
    assert via == (icmp.link_local(router.interfaces["client"]) if forgotten else BETTER[V6])
