"""A service behind an IPVS director that tunnels to its real servers: the client must learn the tunnel's MTU."""

import socket

import pytest

from fixtures.topologies import DIRECTED
from netns import deliver, tcp_info, timer_slack
from netns.hosts import offload
from netns.packets import pmtu

pytestmark = pytest.mark.topology(DIRECTED)

# The RTO is at least 200 ms (TCP_RTO_MIN): no timeout causes an earlier retransmission.
AT_ONCE = 0.1
ETHERNET = 14


def segments(packets, conn):
    """The data segments of a connection among the packets that its host sent, except tunnelled ones."""
    port = conn.getsockname()[1]
    return packets.sent().which(
        "with data of the connection", lambda packet: packet.segment and packet.sport == port and packet.length)


def test_director_answers_a_full_sized_segment_with_the_tunnel_mtu(net, service):
    """1500 bytes and the outer header do not fit: the error announces 1480 (IPv6 1460), RFC 1191 and 8201; ipvs sysctl
    pmtu_disc. The client keeps it for the virtual address for 600 s."""
    client = net["client"]
    conn, peer = service.connect(client)
    with client.capture() as packets:
        deliver(conn, peer, service.largest(1500))

    error = pmtu.too_big(packets.received()).only()
    assert pmtu.announced(error) == service.tunnel_mtu
    path = pmtu.path(client, service.address)
    assert (path.mtu, path.locked) == (service.tunnel_mtu, False)
    assert path.expires in (598, 599, 600)


def test_tcp_retransmits_the_dropped_segment_at_once(net, service, measure):
    """tcp_simple_retransmit() on the error, without a timeout: TCP cuts the segment to the new MSS, the rest
    follows."""
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


def test_mss_of_old_and_new_connections_fits_the_tunnel(net, service):
    """The connection that got the error, and those opened after it: no further error, no further loss."""
    client = net["client"]
    first, first_peer = service.connect(client)
    deliver(first, first_peer, service.largest(1500))
    assert tcp_info(first).snd_mss == service.largest(service.tunnel_mtu)
    lost = client.counter("Tcp.RetransSegs")

    with client.capture() as packets:
        for _real_server in range(2):
            conn, peer = service.connect(client)
            deliver(conn, peer, 3 * service.largest(1500))
            assert tcp_info(conn).snd_mss == service.largest(service.tunnel_mtu)

    assert pmtu.too_big(packets) == []
    assert lost > 0 == client.counter("Tcp.RetransSegs") - lost


def test_real_server_answers_the_client_directly(net, service):
    """The real server sends 1500 bytes from the virtual address to the client, not through the director."""
    client, director = net.nodes("client", "director")
    conn, peer = service.connect(client)
    with director.capture("tcp") as at_director, client.capture("tcp") as at_client:
        deliver(peer, conn, service.largest(1500))

    assert [packet.length for packet in at_client.received() if packet.length] == [service.largest(1500)]
    assert [packet for packet in at_director if packet.source == service.address] == []
    assert len(at_director.received()) >= 1


def test_director_balances_connections_over_both_real_servers(net, service):
    """Round robin gives each two of four connections."""
    client = net["client"]
    pairs = [service.connect(client) for _ in range(4)]
    for conn, peer in pairs:
        deliver(conn, peer, 3 * service.largest(service.tunnel_mtu))

    assert [server.counter("Tcp.PassiveOpens") for server in service.servers] == [2, 2]


def test_gso_packets_over_the_tunnel_mtu_are_not_fragmented(net, service):
    """The director checks the segments of GSO packets against the tunnel's MTU as well: "ipvs: fix MTU check for GSO
    packets in tunnel mode"."""
    client = net["client"]
    conn, peer = service.connect(client)
    with client.capture() as packets:
        deliver(conn, peer, 8 * service.largest(1500))

    assert {pmtu.announced(error) for error in pmtu.too_big(packets.received())} == {service.tunnel_mtu}
    assert tcp_info(conn).snd_mss == service.largest(service.tunnel_mtu)
    for server in service.servers:
        counters = server.counters()
        assert (counters["Ip.ReasmReqds"], counters["Ip6.ReasmReqds"]) == (0, 0)


def test_director_segments_tunnelled_gso_packets_in_software(net, service):
    """Without hardware offload GSO packets are segmented behind the outer header: none is lost or too long
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


@pytest.mark.virtual_clock("waits 600 s, until an exception expires")
def test_client_retries_the_full_mss_after_600_seconds(net, service, clock):
    """600 s (mtu_expires, ip-sysctl.rst) after the last error the client sends a full-sized segment, and learns the MTU
    again."""
    try:
        # Estimating unused rates 25 times a second is most of what these 600 s cost (since 6.2).
        net["director"].pin({"net.ipv4.vs.run_estimation": 0})
    except FileNotFoundError:
        pass
    _grows_back(net, service, clock, 600)


def test_client_retries_the_full_mss_after_a_short_mtu_expires(net, service, clock):
    """With mtu_expires of 2 s."""
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
    # Over IPv6 the segment that finds the route expired still has the old size.
    deliver(conn, peer, 1)

    with client.capture() as packets:
        deliver(conn, peer, service.largest(1500))

    assert segments(packets, conn)[0].length == service.largest(1500)
    assert len(pmtu.too_big(packets.received())) == 1
    assert pmtu.path(client, service.address).mtu == service.tunnel_mtu


def test_director_without_pmtu_disc_fragments_over_ipv4_only(net, service):
    """pmtu_disc=0 (ipvs-sysctl.rst): the director fragments packets that do not fit the tunnel despite DF, the real
    server reassembles them, and the client learns nothing. Over IPv6 a router never fragments: the error comes."""
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


def test_client_on_the_director_learns_the_tunnel_mtu(net, service):
    """For the director's own packets to the virtual address IPVS writes the exception without an ICMP error
    (__ip_vs_get_out_rt(), ip_vs_xmit.c), and the data arrives."""
    director = net["director"]
    # The answers come from an address that is local to the director.
    director.pin({"net.ipv4.conf.to-router.accept_local": 1})
    conn = director.socket(service.family)
    conn.settimeout(10)
    conn.bind((director.address(service.family), 0))
    conn.connect((service.address, service.port))
    peer = service.accept()

    deliver(conn, peer, 3 * service.largest(1500))

    assert tcp_info(conn).snd_mss == service.largest(service.tunnel_mtu)
    assert pmtu.path(director, service.address).mtu == service.tunnel_mtu
    counters = director.counters()
    assert (counters["Ip.FragCreates"], counters["Ip6.FragCreates"]) == (0, 0)
