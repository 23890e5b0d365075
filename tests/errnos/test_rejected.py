"""Routers and firewalls that reject: what they send, and the errno that the client gets."""

import socket
import struct
from contextlib import contextmanager

import pytest

from fixtures.icmp_errors import V4, numbers
from fixtures.topologies import ROUTED
from netns import eventually, tcp_info, tcp_pair, timer_slack
from netns.attempt import WAYS, attempt, errno_name, refused, so_error
from netns.hosts import firewall, reject
from netns.hosts.qdisc import qdisc
from netns.packets import errqueue, icmp
from netns.packets.probe import answers

pytestmark = pytest.mark.topology(ROUTED)

PORT = 7100
# The ICMP (type, code) from a router with such a route: ip_error() in net/ipv4/route.c, ip6_pkt_discard() and
# ip6_pkt_prohibit() in net/ipv6/route.c.
ROUTES = {
    V4: {"unreachable": (3, 1), "prohibit": (3, 13), "throw": (3, 0)},
    socket.AF_INET6: {"unreachable": (1, 0), "prohibit": (1, 1), "throw": (1, 0)},
}
OUT_OF_REACH = {V4: "203.0.113.9", socket.AF_INET6: "2001:db8:ff::9"}


@contextmanager
def delayed_answers(client):
    """Answers take 10 ms, as over a network: over a bare link they arrive while connect() is still sending, when the kernel
    only notes them (sk_err_soft), and the attempt fails at the next SYN."""
    with qdisc(client, "to-router", "netem", "delay", "10ms"):
        yield


@pytest.mark.parametrize("hook", ["input", "forward"])
@pytest.mark.parametrize("flavour", firewall.FLAVOURS)
def test_each_reject_type_gives_udp_its_errno(net, family, flavour, hook):
    """Rejected by the server or by the router: the queued error has the type, code and errno, and that host as offender."""
    client, server, router = net.nodes("client", "server", "router")
    host = server if hook == "input" else router
    offender = server.address(family) if hook == "input" else router.address(family, "client")
    seen, expected = {}, {}
    with reject.rejecting(host, family, "udp", flavour, hook) as ports:
        for port, answer in ports.items():
            sock = client.socket(family, socket.SOCK_DGRAM)
            errqueue.receive_errors(sock)
            sock.connect((server.address(family), port))
            sock.send(b"x")
            queued = errqueue.next_error(sock)
            seen[answer] = (errno_name(queued.errno), queued.kind, queued.code, queued.offender)
            expected[answer] = (numbers(family)[answer.kind, answer.code], answer.kind, answer.code, offender)

    assert seen == expected


def forge(client, server, family, protocol, header):
    """The client sends this header as it is, checksum included."""
    client.socket(family, socket.SOCK_RAW, protocol).sendto(header, (server.address(family), 0))


def checksum(client, server, family, protocol, header):
    return icmp.transport_checksum(client.address(family), server.address(family), protocol, header)


def quoted_checksums(packets, family):
    """The checksums of the datagrams that ICMP errors quote."""
    at = (20 if family == V4 else 40) + 6
    return [int.from_bytes(answer.quoted[at:at + 2], "big") for answer in answers(packets)]


@pytest.mark.parametrize("flavour", firewall.FLAVOURS)
def test_reject_answers_datagrams_with_a_correct_or_no_checksum_only(net, family, flavour):
    """Zero means none (RFC 768; in IPv6 RFC 6935). One with a wrong checksum is not answered: its header may be corrupt."""
    client, server, router = net.nodes("client", "server", "router")
    path = client, server, family, socket.IPPROTO_UDP
    with reject.rejecting(router, family, "udp", flavour, "forward") as ports, client.capture() as packets:
        port = min(ports)
        right = checksum(*path, struct.pack("!4H", 4000, port, 8, 0))
        for each in (right ^ 0xFF, 0, right):
            forge(*path, struct.pack("!4H", 4000, port, 8, each))
        packets.until("an ICMP error that quotes the right checksum", lambda seen: right in quoted_checksums(seen, family), within=5)

    assert quoted_checksums(packets, family) == [0, right]


def sctp_packet(family, source, destination, number, fragment):
    """24 bytes of SCTP with this identification (IPv6: flow label); `fragment`: offset in bytes and whether more follow, or None."""
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    payload, (offset, more) = bytes(24), fragment or (0, False)
    if family == V4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), number, more << 13 | offset >> 3, 64, socket.IPPROTO_SCTP, 0)
        return header + addresses + payload
    if fragment:
        payload = struct.pack("!BBHI", socket.IPPROTO_SCTP, 0, offset | more, number) + payload
    return struct.pack("!IHBB", 0x60000000 | number, len(payload), 44 if fragment else socket.IPPROTO_SCTP, 64) + addresses + payload


def test_reject_answers_only_the_first_fragment_of_a_packet(net, family):
    """No ICMP error for a fragment with a nonzero offset (RFC 1122, 3.2.2; RFC 4443, 2.4): it has no transport header."""
    client, server, router = net.nodes("client", "server", "router")
    here, there = client.address(family), server.address(family)
    with reject.rejecting_protocol(router, family, socket.IPPROTO_SCTP), client.capture() as packets, \
            client.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for number, fragment in enumerate([(24, False), (24, True), (0, True), None], start=1):
            sender.sendto(sctp_packet(family, here, there, number, fragment), (there, 0))
        packets.until("2 responses", lambda seen: len(answers(seen)) >= 2, within=5)

    at = slice(4, 6) if family == V4 else slice(2, 4)
    assert [int.from_bytes(answer.quoted[at], "big") for answer in answers(packets)] == [3, 4]


@pytest.mark.parametrize("flavour", firewall.FLAVOURS)
def test_reject_sends_no_rst_for_a_segment_with_a_wrong_checksum(net, family, flavour):
    """It may belong to another connection. One with the correct checksum gets an RST."""
    client, server, router = net.nodes("client", "server", "router")
    path = client, server, family, socket.IPPROTO_TCP
    with reject.resetting(router, family, PORT, flavour, "forward"), client.capture("tcp") as packets:
        for seq, error in ((1000, 0xFF), (2000, 0)):
            syn = struct.pack("!HHIIBBHHH", 4000, PORT, seq, 0, 0x50, 2, 1000, 0, 0)
            right = checksum(*path, syn)
            forge(*path, syn[:16] + struct.pack("!H", right ^ error) + syn[18:])
        packets.until("a packet received", lambda seen: seen.received() != [], within=5)

    assert [(packet.flags, packet.tcp.ack) for packet in packets.received()] == [("RA", 2001)]


@pytest.mark.parametrize("flavour", firewall.FLAVOURS)
def test_each_reject_type_ends_a_connection_attempt(net, family, flavour):
    """After one SYN, with the errno of the ICMP error, whichever way the client waits for connect()."""
    client, server, router = net.nodes("client", "server", "router")
    seen, expected = {}, {}
    with delayed_answers(client), reject.rejecting(router, family, "tcp", flavour, "forward") as ports:
        for port, answer in ports.items():
            for way in WAYS:
                with client.capture("tcp") as packets:
                    outcome = attempt(client.socket(family), (server.address(family), port), way)
                seen[answer, way] = (outcome.error, len(packets.sent()))
                expected[answer, way] = (numbers(family)[answer.kind, answer.code], 1)

    assert seen == expected


@pytest.mark.parametrize("flavour", firewall.FLAVOURS)
def test_firewall_rst_refuses_a_connection_like_a_closed_port(net, family, flavour):
    """The router sends the RST from the server's address: ECONNREFUSED. The server sees no segment."""
    client, server, router = net.nodes("client", "server", "router")
    errors, flags = {}, {}
    with reject.resetting(router, family, PORT, flavour, "forward"), server.capture("tcp") as arrived:
        for way in WAYS:
            with client.capture("tcp") as packets:
                errors[way] = attempt(client.socket(family), (server.address(family), PORT), way).error
            flags[way] = [(packet.flags, packet.source) for packet in packets]

    assert errors == dict.fromkeys(WAYS, "ECONNREFUSED")
    assert flags == dict.fromkeys(WAYS, [("S", client.address(family)), ("RA", server.address(family))])
    assert len(arrived) == 0


@pytest.mark.parametrize("flavour", firewall.FLAVOURS)
def test_firewall_rst_ends_an_established_connection(net, family, flavour):
    """The next segment gets the RST: ECONNRESET. The server's side stays ESTABLISHED."""
    client, server, router = net.nodes("client", "server", "router")
    conn, peer = tcp_pair(client, server, family)
    with reject.resetting(router, family, conn.getpeername()[1], flavour, "forward"):
        conn.send(b"x")
        eventually("state of the client's connection", lambda: tcp_info(conn).state, "CLOSE", within=5)

    assert so_error(conn) == "ECONNRESET"
    assert tcp_info(peer).state == "ESTABLISHED"


@pytest.mark.parametrize("flavour", firewall.FLAVOURS)
def test_reject_in_the_output_hook_fails_sendto_with_eperm(net, family, flavour):
    """Whatever the reject type (nf_hook(), NF_DROP)."""
    client, server = net.nodes("client", "server")
    with reject.rejecting(client, family, "udp", flavour, "output") as ports:
        for port in ports:
            with refused("EPERM", f"sendto() to port {port}, which an output chain rejects"):
                client.socket(family, socket.SOCK_DGRAM).sendto(b"x", (server.address(family), port))


@pytest.mark.parametrize("flavour", firewall.FLAVOURS)
def test_firewall_rst_in_the_output_hook_refuses_a_connection(net, family, flavour):
    """ECONNREFUSED, and no SYN reaches the server."""
    client, server = net.nodes("client", "server")
    with reject.resetting(client, family, PORT, flavour, "output"), server.capture("tcp") as arrived:
        outcome = attempt(client.socket(family), (server.address(family), PORT), "blocking")

    assert (outcome.error, len(arrived)) == ("ECONNREFUSED", 0)


@pytest.mark.parametrize("route", ["unreachable", "prohibit", "throw"])
def test_reject_routes_on_a_router_give_udp_their_errno(net, family, route):
    """ip-route(8). The queued error has the router's type and code, and the errno of these."""
    client, router = net.nodes("client", "router")
    router.run(["ip", "route", "add", route, OUT_OF_REACH[family]])
    sock = client.socket(family, socket.SOCK_DGRAM)
    errqueue.receive_errors(sock)
    sock.sendto(b"x", (OUT_OF_REACH[family], 9))
    queued = errqueue.next_error(sock)

    answer = ROUTES[family][route]
    assert (queued.kind, queued.code, errno_name(queued.errno), queued.offender) == (
        *answer, numbers(family)[answer], router.address(family, "client"))


@pytest.mark.parametrize("route", ["unreachable", "prohibit", "throw"])
def test_reject_routes_on_a_router_end_a_connection_attempt(net, family, route):
    """After one SYN, with the errno of the ICMP error, whichever way the client waits for connect()."""
    client, router = net.nodes("client", "router")
    router.run(["ip", "route", "add", route, OUT_OF_REACH[family]])
    seen = {}
    with delayed_answers(client):
        for way in WAYS:
            with client.capture("tcp") as packets:
                outcome = attempt(client.socket(family), (OUT_OF_REACH[family], 9), way)
            seen[way] = (outcome.error, len(packets.sent()))

    assert seen == dict.fromkeys(WAYS, (numbers(family)[ROUTES[family][route]], 1))


def test_blackhole_route_on_a_router_sends_no_icmp_error(net, family, silence):
    """The error for the second datagram, to a prohibited address, shows that ICMP errors do reach the client."""
    client, router = net.nodes("client", "router")
    prohibited = "203.0.113.8" if family == V4 else "2001:db8:ff::8"
    router.run(["ip", "route", "add", "prohibit", prohibited])
    sock = client.socket(family, socket.SOCK_DGRAM)
    errqueue.receive_errors(sock)
    sock.sendto(b"x", silence)
    sock.sendto(b"x", (prohibited, 9))

    assert errqueue.next_error(sock).destination == (prohibited, 9)
    assert errqueue.pending(sock) is None


def test_routers_unresolved_neighbour_ends_an_attempt_with_ehostunreach(net, family, clock, measure):
    """After three ARP requests or neighbour solicitations, 1 s apart, the router sends host unreachable (ICMPv6: address
    unreachable): RFC 1812, 5.2.7.1; RFC 4861, 7.2.2."""
    client, router = net.nodes("client", "router")
    router.pin({f"net.{ip}.neigh.to-server.{setting}": value for ip in ("ipv4", "ipv6")
                for setting, value in (("mcast_solicit", 3), ("retrans_time_ms", 1000))})
    absent = "198.51.100.77" if family == V4 else "2001:db8:2::77"
    clock.align(4)
    outcome = attempt(client.socket(family), (absent, 9), "epoll")

    assert outcome.error == "EHOSTUNREACH"
    assert 2.9 < measure("errno.behind_router_unreachable_after", outcome.seconds, "s", timer_slack(1, 1, 1)) < 4
