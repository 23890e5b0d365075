"""A router with two equal-cost paths, and packets that carry others: tunnels, ICMP errors (ip-sysctl.rst,
fib_multipath_hash_policy)."""

import socket
import struct

import pytest

from fixtures.icmp_errors import PORT_UNREACHABLE, V4
from fixtures.topologies import FORK
from netns.packets import icmp
from netns.packets.probe import probe

pytestmark = pytest.mark.topology(FORK)

# All of them take the same of two paths by chance once in 8 million times.
MANY = 24
BOTH, ONE = 2, 1
IPIP = {V4: socket.IPPROTO_IPIP, socket.AF_INET6: socket.IPPROTO_IPV6}


@pytest.mark.parametrize("number, spread", [(0, ONE), (1, ONE), (2, BOTH)], ids=("layer3", "layer4", "inner-layer3"))
def test_only_policy_2_spreads_tunnelled_flows_by_inner_addresses(net, family, fork, number, spread):
    """IPIP (IPv6 in IPv6): same outer addresses, different inner ones."""
    fork.set_hash_policy(number)
    client, server = net.nodes("client", "server")
    with client.socket(family, socket.SOCK_RAW, IPIP[family]) as raw, server.capture() as packets:
        for inner in range(1, MANY + 1):
            source, destination = (("10.0.0.{}", "10.1.0.1") if family == V4 else ("fd00::{}", "fd01::1"))
            raw.sendto(icmp.udp_quote(source.format(inner), 9, destination, 9), (fork.service, 0))
        packets.until(f"{MANY} packets to the service", lambda seen: len(to(fork.service, seen)) == MANY, within=5)

    assert len({packet.interface for packet in to(fork.service, packets)}) == spread


def to(address, packets):
    """The packets that arrived for the address."""
    return packets.received().which(f"for {address}", lambda packet: packet.destination == address)


@pytest.mark.parametrize("family", [socket.AF_INET6], ids=["ipv6"])
@pytest.mark.parametrize("labels, spread", [(0, ONE), (1, BOTH)], ids=("without", "with"))
def test_policy_0_spreads_ipv6_flows_by_flow_label(net, family, fork, labels, spread):
    """A label is part of an IPv6 flow (RFC 6438). With auto_flowlabels=1 each socket has its own, and its flows spread
    although ports are not hashed."""
    fork.set_hash_policy(0)
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv6.auto_flowlabels": labels})
    with server.capture() as packets:
        for _flow in range(MANY):
            client.socket(family, socket.SOCK_DGRAM).sendto(b"x", (fork.service, 9))
        packets.until(f"{MANY} packets to the service", lambda seen: len(to(fork.service, seen)) == MANY, within=5)

    assert len({packet.interface for packet in to(fork.service, packets)}) == spread


def test_policy_0_sends_icmp_errors_along_the_path_of_their_flow(net, family, fork):
    """Policy 0 hashes the addresses of the quoted packet, in either order, whatever the source of the error: the host
    that has the flow gets its errors (ip_multipath_l3_keys(), ip6_multipath_l3_keys())."""
    fork.set_hash_policy(0)
    flow, errors = paths_of_a_flow_and_its_errors(net, family, fork)

    assert errors == {flow}


@pytest.mark.parametrize("number", [1, 2], ids=("layer4", "inner-layer3"))
def test_policies_1_and_2_hash_icmp_errors_by_their_own_addresses(net, family, fork, number):
    """They see an ICMP packet with two addresses and no ports: an error can miss the host of its flow."""
    fork.set_hash_policy(number)
    _flow, errors = paths_of_a_flow_and_its_errors(net, family, fork)

    assert len(errors) == BOTH


def paths_of_a_flow_and_its_errors(net, family, fork):
    """The interface that a datagram arrives by at the server, and those of errors about its answer, from many senders."""
    client, server = net.nodes("client", "server")
    senders = fork.add_source_addresses(MANY)
    with server.capture() as packets:
        probe(client, "udp", client.address(family), fork.service, 64, sport=9, dport=9)
        packets.until("one packet to the service", lambda seen: len(to(fork.service, seen)) == 1, within=5)
        quoted = icmp.udp_quote(fork.service, 9, client.address(family), 9)
        for sender in senders:
            send_error_from(client, family, sender, fork.service, quoted)
        packets.until(f"{1 + MANY} packets to the service", lambda seen: len(to(fork.service, seen)) == 1 + MANY, within=5)

    seen = to(fork.service, packets).some()
    return seen[0].interface, {packet.interface for packet in seen[1:]}


def send_error_from(host, family, source, destination, quoted):
    """Port unreachable from one of the host's addresses, quoting the destination's packet."""
    protocol = socket.IPPROTO_ICMP if family == V4 else socket.IPPROTO_ICMPV6
    message = struct.pack("!BBHI", *PORT_UNREACHABLE[family], 0, 0) + quoted
    with host.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.bind((source, 0))
        raw.sendto(message[:2] + struct.pack("!H", icmp.checksum(message)) + message[4:], (destination, 0))
