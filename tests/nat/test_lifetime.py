"""How long a translation lasts: idle, without its address, without its link. Source: nf_conntrack-sysctl.rst; iptables-extensions(8),
MASQUERADE; RFC 4787, 4.3; RFC 5382, 5."""

import socket

import pytest

from fixtures.nat import INSIDE, V4, exchange, inbox, seen, to, translate, waiting
from fixtures.topologies import ROUTED
from netns import Link, Route, Topology, deliver, listen
from netns.attempt import refused
from netns.netlink import conntrack
from netns.packets import pmtu, segment
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(INSIDE)

PORT, CLIENT_PORT = 7000, 40000
MASQUERADE = "postrouting oifname to-server masquerade"


@pytest.mark.virtual_clock("two minutes pass")
def test_udp_mapping_lasts_120_s_after_traffic_in_both_directions(net, family, clock):
    """nf_conntrack_udp_timeout_stream: 120 s since the last packet, once traffic both ways was seen for 2 s. After 119 s the server's
    datagram reaches the client, and renews it (RFC 4787, REQ-6); after 122 s it does not (kubernetes #120076)."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, MASQUERADE)
    ours, theirs = inbox(client, family), inbox(server, family, PORT)
    target = server.address(family), PORT
    exchange(ours, theirs, target)
    clock.sleep(2.5)
    source = exchange(ours, theirs, target)
    for _ in range(2):
        clock.sleep(119)
        theirs.sendto(b"late", source)
        assert ours.recv(10) == b"late"
    clock.sleep(122)
    theirs.connect(source)
    theirs.send(b"too late")

    with refused("ECONNREFUSED", "the router's answer to a datagram for a mapping that has ended"):
        theirs.recv(1)
    assert waiting([ours]) == [False]


@pytest.mark.virtual_clock("half a minute passes")
def test_mapping_without_an_answer_lasts_30_s_and_is_renewed_by_the_client(net, family, clock):
    """nf_conntrack_udp_timeout: what a client sends renews its mapping, so the port stays the same from one keepalive to the next; a
    mapping that has ended is made anew."""
    client, neighbour, router, server = net.nodes("client", "neighbour", "router", "server")
    translate(router, family, "postrouting udp dport 7000 masquerade to :4000-4001")
    ours, theirs = inbox(client, family), inbox(server, family, PORT)
    target = server.address(family), PORT
    first = seen(ours, theirs, target)
    for _ in range(2):
        clock.sleep(29)
        assert seen(ours, theirs, target) == first
    other = seen(inbox(neighbour, family), theirs, target)
    assert {first[1], other[1]} == {4000, 4001}
    clock.sleep(32)

    assert {seen(inbox(neighbour, family), theirs, target)[1] for _ in range(2)} == {4000, 4001}


def test_masquerade_forgets_its_connections_when_the_interface_goes_down(net, family, clock):
    """MASQUERADE: "connections are forgotten when the interface goes down", as the next dial-up is unlikely to have the same address;
    SNAT keeps them (iptables-extensions(8))."""
    client, router, server = net.nodes("client", "router", "server")
    far = router.address(family, "server")
    translate(router, family, f"postrouting udp dport {PORT} masquerade", f"postrouting udp dport {PORT + 1} snat to {far}")
    with conntrack.tracking(router) as tracker:
        sources = {}
        for number in range(2):
            ours = inbox(client, family, CLIENT_PORT + number)
            exchange(ours, inbox(server, family, PORT + number), (server.address(family), PORT + number))
            sources[PORT + number] = ours.getsockname()[:2]

        def known():
            return [tracker.lifetime((client.address(family), source[1]), (server.address(family), port), socket.IPPROTO_UDP) is not None
                    for port, source in sources.items()]

        assert known() == [True, True]
        with router.link_down("server"):
            clock.sleep(1)                  # over IPv6 a worker does it

            assert known() == [False, True]


def test_connection_ends_with_the_address_that_it_was_masqueraded_by(net, family, clock):
    """A deleted address takes its masqueraded connections along, and no others (masq_inet_event(), masq_inet6_event()): the next datagram
    goes out by an address that is there."""
    client, router, server = net.nodes("client", "router", "server")
    old, new, prefix = ("198.51.100.2", "198.51.100.7", 24) if family == V4 else ("2001:db8:2::2", "2001:db8:2::7", 64)
    router.pin({"net.ipv4.conf.all.promote_secondaries": 1})
    router.add_address(f"{new}/{prefix}", "server")
    if family != V4:                        # so that the other one is the source: RFC 6724, rule 3
        router.run(["ip", "address", "change", f"{new}/{prefix}", "dev", "to-server", "preferred_lft", "0"])
    translate(router, family, f"postrouting udp dport {PORT} masquerade", f"postrouting udp dport {PORT + 1} snat to {new}")
    pairs = [(inbox(client, family), inbox(server, family, PORT + number)) for number in range(2)]

    def sources():
        return [exchange(ours, theirs, (server.address(family), PORT + number))[0] for number, (ours, theirs) in enumerate(pairs)]

    with conntrack.tracking(router) as tracker:
        before = sources()
        if family != V4:
            router.run([*"ip address change dev to-server preferred_lft forever valid_lft forever".split(), f"{new}/{prefix}"])
        router.run(["ip", "address", "delete", f"{old}/{prefix}", "dev", "to-server"])
        clock.sleep(1)                      # over IPv6 a worker does it
        left = [tracker.lifetime((client.address(family), ours.getsockname()[1]), (server.address(family), PORT + number),
                                 socket.IPPROTO_UDP) is not None for number, (ours, _theirs) in enumerate(pairs)]

        assert (before, left, sources()) == ([old, new], [False, True], [new, new])


@pytest.mark.topology(ROUTED)
def test_late_segment_of_a_translated_connection_is_not_invalid(net, family):
    """A retransmission that arrives after its ACK is left of the window: it is delivered, translated, and answered by a duplicate ACK.
    Kernels without "netfilter: conntrack: ignore overly delayed tcp packets" call it invalid, and a client that gets it untranslated resets
    the server (kubernetes #117924, #74839)."""
    client, server, router = net.nodes("client", "server", "router")
    near, there = router.address(family), server.address(family)
    with conntrack.tracking(router) as tracker:
        translate(router, family, f"prerouting tcp dport {PORT} dnat to {to(there, PORT)}")
        listener = server.socket(family)
        listener.bind((there, PORT))
        listener.listen()
        conn = client.socket(family)
        conn.connect((near, PORT))
        peer = server.adopt(listener.accept()[0])
        deliver(conn, peer, 10)
        with client.capture("tcp") as data:
            deliver(peer, conn, 200_000)
        old = data.received().which("with data", lambda packet: packet.length > 0)[0]
        with client.capture("tcp") as packets:
            segment.send(server, (there, PORT), conn.getsockname()[:2], "PA", old.seq, old.ack, old.timestamps, bytes(100))
            fence(server, client, conn.getsockname()[0])

        late = packets.received().only()
        assert (late.source, tracker.invalid()) == (near, 0)
        assert [packet.flags for packet in packets.sent()] == ["A"]
        deliver(conn, peer, 10)


NARROW_BEYOND = Topology(
    links=(
        Link("client", "router", ipv4="192.0.2.0/24", ipv6="2001:db8:1::/64"),
        Link("router", "far-router", ipv4="198.51.100.0/28", ipv6="2001:db8:2::/64"),
        Link("far-router", "server", ipv4="198.51.100.16/28", ipv6="2001:db8:3::/64", mtu=1400),
    ),
    routes=(Route("client", via="router"), Route("router", via="far-router"), Route("server", via="far-router")),
    routers=("router", "far-router"),
)


@pytest.mark.topology(NARROW_BEYOND)
def test_client_behind_nat_learns_the_path_mtu_beyond_it(net, family):
    """Fragmentation needed and Packet Too Big quote the translated packet; the router translates both headers back (RFC 5508, REQ-4; RFC
    1191). The client's next datagram is refused at 1400 bytes; the router itself has learnt nothing."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, "postrouting oifname to-far-router masquerade")
    ours = client.socket(family, socket.SOCK_DGRAM)
    pmtu.never_fragment(ours)
    ours.connect((server.address(family), PORT))
    with client.capture("icmp" if family == V4 else "icmpv6") as packets:
        ours.send(bytes(1452))
        packets.until("the error", lambda seen_so_far: [each for each in seen_so_far.received() if each.icmp[0] in (2, 3)], within=5)

    with refused("EMSGSIZE", "a datagram larger than the path"):
        ours.send(bytes(1452))
    assert pmtu.of_socket(ours) == 1400
    router_socket = router.socket(family, socket.SOCK_DGRAM)
    router_socket.connect((server.address(family), PORT))
    assert pmtu.of_socket(router_socket) == 1500


def test_fragments_are_translated_as_one_datagram(net, family):
    """Only the first fragment has the ports: the router reassembles, translates, and sends as many fragments again (RFC 3022, 6.3;
    RFC 4787, REQ-14), also of the answer."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, MASQUERADE)
    ours, theirs = inbox(client, family, CLIENT_PORT), inbox(server, family, PORT)
    with server.capture("udp") as packets:
        ours.sendto(bytes(4000), (server.address(family), PORT))
        data, source = theirs.recvfrom(5000)
        theirs.sendto(data, source[:2])
        answer, origin = ours.recvfrom(5000)

    assert (len(data), source[:2]) == (4000, (router.address(family, "server"), CLIENT_PORT))
    assert (len(answer), origin[:2]) == (4000, (server.address(family), PORT))
    assert {packet.source for packet in packets.received()} == {router.address(family, "server")}
    assert [packet.fragment is not None for packet in packets.received()] == [True] * 3


@pytest.mark.virtual_clock("hours pass")
def test_idle_connection_is_forgotten_after_its_timeout_and_then_the_server_is_refused(net, family, clock):
    """nf_conntrack_tcp_timeout_established, here an hour for the default of five days: after 59 minutes the server's data arrives, and an
    hour and a minute after that it is reset by the router, which has no socket for it (RFC 5382, REQ-5 asks for two hours and four
    minutes at least)."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, MASQUERADE)
    with conntrack.tracking(router) as tracker:
        assert tracker.timeout("ESTABLISHED") == 432000
        tracker.pin(tcp_timeout_established=3600)
        listener = listen(server, family)
        conn = client.socket(family)
        conn.connect(listener.getsockname()[:2])
        peer = server.adopt(listener.accept()[0])
        clock.sleep(3540)
        deliver(peer, conn, 10)
        clock.sleep(3661)
        peer.settimeout(10)
        peer.send(b"too late")

        with refused("ECONNRESET", "data for a mapping that has ended"):
            peer.recv(1)
