"""What a router does with packets larger than the path ahead (RFC 1812, 5.2.6; RFC 8200, 5)."""

import socket

import pytest

from fixtures.topologies import NARROW, ROUTED
from netns import deliver, tcp_info, tcp_pair
from netns.hosts import offload
from netns.packets import icmp, pmtu


@pytest.mark.topology(NARROW)
@pytest.mark.parametrize("gso", [False, True], ids=["segments", "gso"])
def test_router_reports_a_narrow_link_to_the_sender(net, family, gso):
    """Segments of 1500 bytes, also within GSO packets, meet a link of 1400: the errors announce 1400, and all data
    arrives in smaller segments. Each error is about one packet that was not forwarded."""
    client, server, router = net.nodes("client", "server", "router")
    if not gso:
        offload.segment_in_software(client)
    conn, peer = tcp_pair(client, server, family)
    full = tcp_info(conn).snd_mss
    with client.capture() as packets:
        deliver(conn, peer, 8 * full)

    errors = pmtu.too_big(packets.received())
    assert {pmtu.announced(error) for error in errors} == {1400}
    counted = router.counter("Ip.FragFails" if family == socket.AF_INET else "Ip6.InTooBigErrors")
    assert counted == len(errors)
    assert tcp_info(conn).snd_mss == full - 100
    assert pmtu.path(client, server.address(family)).mtu == 1400
    assert client.counter("TcpExt.TCPTimeouts") == 0


@pytest.mark.topology(NARROW)
def test_router_fragments_a_datagram_without_df(net):
    """The router before the narrow link sends two fragments; the server reassembles them."""
    client, server, router = net.nodes("client", "server", "router")
    ours, theirs = (host.socket(socket.AF_INET, socket.SOCK_DGRAM) for host in (client, server))
    ours.setsockopt(socket.IPPROTO_IP, 10, 0)
    theirs.bind((server.address(socket.AF_INET), 0))
    theirs.settimeout(5)
    ours.sendto(bytes(1472), theirs.getsockname())

    assert len(theirs.recv(2000)) == 1472
    assert (router.counter("Ip.FragOKs"), router.counter("Ip.FragCreates")) == (1, 2)
    assert server.counter("Ip.ReasmOKs") == 1


@pytest.mark.topology(ROUTED)
def test_route_mtu_applies_to_forwarded_packets(net, family):
    """`ip route ... mtu 1300` on the router: lower than the link's MTU, and the sender learns it."""
    client, server, router = net.nodes("client", "server", "router")
    router.run(["ip", "route", "add", server.address(family), "dev", "to-server", "mtu", "1300"])
    conn, peer = tcp_pair(client, server, family)
    deliver(conn, peer, 5000)

    assert pmtu.path(client, server.address(family)).mtu == 1300
    assert router.counter("Ip.FragFails" if family == socket.AF_INET else "Ip6.FragFails") >= 1


@pytest.mark.topology(ROUTED)
@pytest.mark.parametrize("use, told", [(0, None), (1, 1300)], ids=["default", "use_pmtu"])
def test_router_applies_its_exceptions_to_forwarding_only_with_ip_forward_use_pmtu(net, use, told):
    """ip_forward_use_pmtu=0 (ip-sysctl.rst): errors about the router's own traffic, which anyone could forge, do not
    affect forwarded packets; 1: they do."""
    client, server, router = net.nodes("client", "server", "router")
    router.pin({"net.ipv4.ip_forward_use_pmtu": use})
    source, destination = router.address(socket.AF_INET, "server"), server.address(socket.AF_INET)
    with router.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((source, 0))
        icmp.send_too_big(server, router, 1300, icmp.udp_quote(source, udp.getsockname()[1], destination, 9))
    assert pmtu.path(router, destination).mtu == 1300

    deliver(*tcp_pair(client, server, socket.AF_INET), 5000)

    assert pmtu.path(client, destination).mtu == told


@pytest.mark.topology(ROUTED)
def test_time_exceeded_comes_before_fragmentation_needed(net):
    """A packet with a TTL of 1 is too large as well: the TTL is checked first (ip_forward())."""
    client, server, router = net.nodes("client", "server", "router")
    router.run(["ip", "route", "add", server.address(socket.AF_INET), "dev", "to-server", "mtu", "1300"])
    udp = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IP, 10, 2)
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    with client.capture("icmp") as packets:
        udp.sendto(bytes(1472), (server.address(socket.AF_INET), 9))
        packets.until("a packet received", lambda seen: seen.received(), within=5)

    assert [packet.layers["ICMP"].type for packet in packets.received()] == [11]
