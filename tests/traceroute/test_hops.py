"""Each hop's answer to a probe of its TTL: RFC 1812, 5.3.1; RFC 4443, 3.3."""

import socket

import pytest

from fixtures.icmp_errors import ECHO_REPLY, PORT_UNREACHABLE, TIME_EXCEEDED, TOO_BIG, V4
from fixtures.topologies import NARROW
from netns.packets import icmp
from netns.packets.probe import KINDS, answers

pytestmark = pytest.mark.topology(NARROW)

HEADER = {V4: 20, socket.AF_INET6: 40}
TTL_AT = {V4: 8, socket.AF_INET6: 7}
# The longest ICMP error: RFC 1812, 4.3.2.3; RFC 4443, 3.1 (the minimum MTU of IPv6).
LONGEST = {V4: 576, socket.AF_INET6: 1280}
FLOW = dict(sport=33001, dport=33435)


@pytest.mark.parametrize("kind", KINDS)
def test_each_hop_answers_from_the_address_of_the_incoming_link(net, family, tracer, kind):
    """The first router sends time exceeded at TTL 1, the second at 2, each from its address on the probe's incoming
    link. At 3 the destination sends port unreachable, RST or echo reply."""
    server, router, far = net.nodes("server", "router", "far-router")
    path = [tracer.probe(kind, server.address(family), ttl)[1] for ttl in (1, 2, 3)]

    end = {"udp": PORT_UNREACHABLE[family], "tcp": "RA", "icmp": ECHO_REPLY[family]}[kind]
    assert [(hop.source, hop.kind) for hop in path] == [
        (router.address(family, "client"), TIME_EXCEEDED[family]),
        (far.address(family, "router"), TIME_EXCEEDED[family]),
        (server.address(family), end),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ttl", [1, 2])
def test_time_exceeded_quotes_the_probe(net, family, tracer, kind, ttl):
    """The addresses, a TTL of 1, and all bytes of the probe, by which traceroute recognises its own."""
    client, server = net.nodes("client", "server")
    sent, answer = tracer.probe(kind, server.address(family), ttl, **FLOW)

    header, quoted = answer.quoted[:HEADER[family]], answer.quoted[HEADER[family]:]
    addresses = b"".join(socket.inet_pton(family, host.address(family)) for host in (client, server))
    assert header.endswith(addresses)
    assert header[TTL_AT[family]] == 1
    assert quoted == sent


def test_quote_of_a_large_probe_is_truncated(net, family, tracer):
    """The error has 576 bytes over IPv4, 1280 over IPv6; a smaller probe is quoted whole."""
    server = net["server"]
    lengths = {size: tracer.probe("udp", server.address(family), 1, size=size)[1].length for size in (200, 1500)}

    assert lengths == {200: 200 + HEADER[family] + 8, 1500: LONGEST[family]}


@pytest.mark.parametrize("kind", ["udp", "icmp"])
def test_ttl_is_checked_before_the_mtu(net, family, tracer, kind):
    """1500 bytes for a link of 1400: with TTL 1 the router sends time exceeded, with TTL 2 too big (ip_forward(),
    ip6_forward()); never both."""
    server, router = net.nodes("server", "router")
    _sent, expired = tracer.probe(kind, server.address(family), 1, size=1500)
    _sent, too_big = tracer.probe(kind, server.address(family), 2, size=1500)

    here = router.address(family, "client")
    assert (expired.source, expired.kind) == (here, TIME_EXCEEDED[family])
    assert (too_big.source, too_big.kind) == (here, TOO_BIG[family])
    counters = router.counters()
    assert counters["Ip.FragFails" if family == V4 else "Ip6.FragFails"] == 1


def test_an_expired_packet_counts_as_a_header_error(net, family, tracer):
    """ipInHdrErrors, ipv6IfStatsInHdrErrors (RFC 4293), and one OutTimeExcds."""
    router = net["router"]
    before = router.counters()
    tracer.probe("udp", net["server"].address(family), 1)
    counted = router.counters().since(before)

    ip, icmp_ = ("Ip", "Icmp") if family == V4 else ("Ip6", "Icmp6")
    assert counted[f"{ip}.InHdrErrors"] == 1
    assert counted[f"{icmp_}.OutTimeExcds"] == 1


def test_no_icmp_error_is_sent_about_an_icmp_error(net, family, tracer):
    """The router silently drops an ICMP error whose TTL expires (RFC 1122, 3.2.2; RFC 4443, 2.4 e); it answers an echo
    request sent after it."""
    client, server, router = net.nodes("client", "server", "router")
    quoted = icmp.udp_quote(server.address(family), 9, client.address(family), 9)
    with client.capture("icmp" if family == V4 else "icmpv6") as packets:
        client.pin({"net.ipv4.ip_default_ttl": 1, "net.ipv6.conf.to-router.hop_limit": 1})
        icmp.send_error(client, router, *PORT_UNREACHABLE[family], quoted, counted=False)
        tracer.probe("icmp", server.address(family), 1)

    assert [answer.kind for answer in answers(packets)] == [TIME_EXCEEDED[family]]
    assert router.counter("Ip.InHdrErrors" if family == V4 else "Ip6.InHdrErrors") == 2
