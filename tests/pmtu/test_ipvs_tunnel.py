"""A service behind an IPVS director that tunnels to its real servers: the client must learn of the tunnel's MTU."""

import socket

import pytest

from fixtures.topologies import DIRECTED
from netns import deliver, tcp_info, timer_slack
from netns.hosts import offload
from netns.packets import pmtu

pytestmark = pytest.mark.topology(DIRECTED)

# The retransmission timeout is 200 ms at least (TCP_RTO_MIN): what happens before is no timeout's work.
AT_ONCE = 0.1
ETHERNET = 14


def segments(packets, conn):
    """The data segments of a connection among the packets that its host sent, tunnelled ones apart."""
    port = conn.getsockname()[1]
    return packets.sent().which(
        "with data of the connection", lambda packet: packet.segment and packet.sport == port and packet.length)


def test_a_full_sized_segment_brings_an_icmp_error_with_the_tunnels_mtu(net, service):
    """1500 bytes and the outer header do not fit: the director answers with 1480 (IPv6 1460), RFC 1191 and 8201; ipvs
    sysctl pmtu_disc. The client keeps it for the virtual address for 600 s."""
    client = net["client"]
    conn, peer = service.connect(client)
    with client.capture() as packets:
        deliver(conn, peer, service.largest(1500))

    error = pmtu.too_big(packets.received()).only()
    assert pmtu.announced(error) == service.tunnel_mtu
    path = pmtu.path(client, service.address)
    assert (path.mtu, path.locked) == (service.tunnel_mtu, False)
    assert path.expires in (598, 599, 600)


def test_the_lost_segment_is_sent_again_at_once(net, service, measure):
    """tcp_simple_retransmit() on the error, without a timeout: the segment is cut to the new MSS, its rest follows."""
    client = net["client"]
    offload.segment_in_software(client)
    conn, peer = service.connect(client)
    with client.capture() as packets:
        deliver(conn, peer, service.largest(1500))

    error = pmtu.too_big(packets.received()).only()
    data = segments(packets, conn)
    lost, again = data[0], data[1:]
    assert lost.length == service.largest(1500)
    assert [segment.length for segment in again] == [service.largest(service.tunnel_mtu), service.overhead]
    assert measure("pmtu.ipvs.retransmitted_after", again[0].time - error.time, "s", timer_slack(0)) < AT_ONCE
    counters = client.counters()
    assert (counters["TcpExt.TCPTimeouts"], counters["Tcp.RetransSegs"] >= 1) == (0, True)


def test_the_mss_follows_the_tunnel(net, service):
    """Of the connection that met the error and of those made after it: no further error, no further loss."""
    client = net["client"]
    first, first_peer = service.connect(client)
    deliver(first, first_peer, service.largest(1500))
    assert tcp_info(first).snd_mss == service.largest(service.tunnel_mtu)

    with client.capture() as packets:
        for _real_server in range(2):
            conn, peer = service.connect(client)
            deliver(conn, peer, 3 * service.largest(1500))
            assert tcp_info(conn).snd_mss == service.largest(service.tunnel_mtu)

    assert pmtu.too_big(packets) == []
    assert client.counter("Tcp.RetransSegs") <= 2


def test_what_arrives_by_the_tunnel_is_answered_directly(net, service):
    """The real server's packets go from the virtual address to the client and not through the director; 1500 bytes
    fit there."""
    client, director = net.nodes("client", "director")
    conn, peer = service.connect(client)
    with director.capture("tcp") as at_director, client.capture("tcp") as at_client:
        deliver(peer, conn, service.largest(1500))

    assert [packet.length for packet in at_client.received() if packet.length] == [service.largest(1500)]
    assert [packet for packet in at_director if packet.source == service.address] == []
    assert len(at_director.received()) >= 1


def test_both_real_servers_get_their_connections(net, service):
    """Round robin, each through a tunnel of its own; one exception serves both (it is the virtual address's)."""
    client = net["client"]
    pairs = [service.connect(client) for _ in range(4)]
    for conn, peer in pairs:
        deliver(conn, peer, 3 * service.largest(service.tunnel_mtu))

    assert [server.counter("Tcp.PassiveOpens") for server in service.servers] == [2, 2]


def test_large_segments_are_not_fragmented_behind_the_director(net, service):
    """Segments that wait to be cut by the hardware (GSO) are checked against the tunnel's MTU as well: "ipvs: fix MTU
    check for GSO packets in tunnel mode"."""
    client = net["client"]
    conn, peer = service.connect(client)
    with client.capture() as packets:
        deliver(conn, peer, 8 * service.largest(1500))

    assert {pmtu.announced(error) for error in pmtu.too_big(packets.received())} == {service.tunnel_mtu}
    assert tcp_info(conn).snd_mss == service.largest(service.tunnel_mtu)
    for server in service.servers:
        counters = server.counters()
        assert (counters["Ip.ReasmReqds"], counters["Ip6.ReasmReqds"]) == (0, 0)


def test_a_director_that_cuts_in_software_cuts_what_it_tunnels(net, service):
    """Large segments (GSO) are cut behind the outer header where the interface cannot do it: none is lost or too long
    (Documentation/networking/segmentation-offloads.rst, SKB_GSO_IPXIP4)."""
    client, director = net.nodes("client", "director")
    offload.segment_in_software(director)
    conn, peer = service.connect(client)
    deliver(conn, peer, service.largest(1500))
    before = client.counter("Tcp.RetransSegs")
    with director.capture() as packets:
        deliver(conn, peer, 8 * service.largest(service.tunnel_mtu))

    assert client.counter("Tcp.RetransSegs") == before
    assert max(packet.frame.length for packet in packets.received().some()) > ETHERNET + 1500
    assert max(packet.frame.length for packet in packets.sent().some()) == ETHERNET + 1500


@pytest.mark.virtual_clock("an exception lives for 600 s")
def test_the_mss_grows_back_after_the_default_expiry(net, service, clock):
    """600 s (mtu_expires, ip-sysctl.rst) after the last error the client tries the full size again, and learns anew."""
    try:
        # Rates that nobody reads are estimated 25 times a second, most of what these 600 s cost (since 6.2).
        net["director"].pin({"net.ipv4.vs.run_estimation": 0})
    except FileNotFoundError:
        pass
    _grows_back(net, service, clock, 600)


def test_the_mss_grows_back_after_a_short_expiry(net, service, clock):
    """As with the default, in 2 s."""
    with pmtu.expiry(net["client"], service.family, 2):
        _grows_back(net, service, clock, 2)


def _grows_back(net, service, clock, expiry):
    client = net["client"]
    offload.segment_in_software(client)
    conn, peer = service.connect(client)
    deliver(conn, peer, service.largest(1500))
    clock.sleep(expiry - 1)
    deliver(conn, peer, service.largest(1500))
    assert tcp_info(conn).snd_mss == service.largest(service.tunnel_mtu)
    clock.sleep(1.1)
    # Over IPv6 the segment that finds the route expired has still the old size.
    deliver(conn, peer, 1)

    with client.capture() as packets:
        deliver(conn, peer, service.largest(1500))

    assert segments(packets, conn)[0].length == service.largest(1500)
    assert len(pmtu.too_big(packets.received())) == 1
    assert pmtu.path(client, service.address).mtu == service.tunnel_mtu


def test_without_pmtu_disc_the_director_fragments(net, service):
    """pmtu_disc=0 (ipvs-sysctl.rst): a packet that does not fit the tunnel is fragmented though it has DF, the real
    server puts it together, and the client learns nothing. Over IPv6 a router never fragments: the error comes."""
    client, director = net.nodes("client", "director")
    director.pin({"net.ipv4.vs.pmtu_disc": 0})
    offload.segment_in_software(client)
    conn, peer = service.connect(client)
    with client.capture() as packets:
        deliver(conn, peer, 3 * service.largest(1500))

    if service.family == socket.AF_INET:
        assert pmtu.too_big(packets) == []
        assert pmtu.path(client, service.address).mtu is None
        assert director.counter("Ip.FragCreates") == 2 * 3
        assert sum(server.counter("Ip.ReasmOKs") for server in service.servers) == 3
    else:
        assert {pmtu.announced(error) for error in pmtu.too_big(packets)} == {service.tunnel_mtu}


def test_a_client_on_the_director_learns_the_tunnels_mtu(net, service):
    """What the director itself sends to the virtual address gets no ICMP error: IPVS writes the exception at once
    (__ip_vs_get_out_rt(), ip_vs_xmit.c), and the data arrives."""
    director = net["director"]
    # The answers come from an address that the director itself holds.
    director.pin({"net.ipv4.conf.to-router.accept_local": 1})
    conn = director.socket(service.family)
    conn.settimeout(10)
    conn.bind((director.address(service.family), 0))
    conn.connect((service.address, service.port))
    peer = service.accept()

    deliver(conn, peer, 3 * service.largest(1500))

    assert tcp_info(conn).snd_mss <= service.largest(service.tunnel_mtu)
    counters = director.counters()
    assert (counters["Ip.FragCreates"], counters["Ip6.FragCreates"]) == (0, 0)
