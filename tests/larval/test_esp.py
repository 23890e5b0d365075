"""With the SAs in place, traffic of the policy is ESP in both directions (RFC 4303), without plaintext."""

import dataclasses
import socket

import pytest

from fixtures.topologies import LAN
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)

PLAINTEXT = b"plaintext that nobody may read"


def assert_only_esp(packets, peers):
    """All packets except ARP and neighbour discovery are ESP with the SPI of their direction."""
    passed = [packet for packet in packets if packet.protocol not in (None, "icmpv6")]
    assert [packet for packet in passed if packet.protocol != "esp"] == []
    assert {packet.spi for packet in passed if packet.sent} == {peers.SPI_OUT}
    assert {packet.spi for packet in passed if not packet.sent} == {peers.SPI_IN}
    assert [packet for packet in passed if PLAINTEXT in packet.frame.data] == []


def test_tcp_is_carried_by_esp_in_both_directions(peers):
    """Handshake, data and ACKs are protocol 50; no TCP is visible on the wire."""
    peers.ready()
    peers.add_policy(socket.SOCK_STREAM)
    peers.add_sa()
    listener = peers.tcp_listener()
    with peers.client.capture() as packets:
        conn = peers.client.socket(peers.family)
        conn.connect(peers.target)
        accepted = peers.server.adopt(listener.accept()[0])
        for sender, receiver in ((conn, accepted), (accepted, conn)):
            sender.sendall(PLAINTEXT)
            assert receiver.recv(100) == PLAINTEXT

    assert_only_esp(packets, peers)


def test_udp_is_carried_by_esp_in_both_directions(peers):
    """Each datagram is one packet of protocol 50: 8 bytes of ESP header, 8 of IV, the padded datagram, 16 of ICV."""
    peers.ready()
    peers.add_policy(socket.SOCK_DGRAM)
    peers.add_sa()
    server, client = peers.udp_server(), peers.udp_client()
    with peers.client.capture() as packets:
        client.sendto(PLAINTEXT, peers.target)
        data, address = server.recvfrom(100)
        server.sendto(data, address)
        assert client.recv(100) == PLAINTEXT

    assert_only_esp(packets, peers)
    lengths = [len(packet.ip.payload) for packet in packets if packet.protocol == "esp"]
    # RFC 4303, 2.4: datagram, pad length and next header are padded to a multiple of four bytes.
    padded = (8 + len(PLAINTEXT) + 2 + 3) // 4 * 4
    assert lengths == [8 + 8 + padded + 16] * 2


def test_tunnel_mode_esp_carries_the_whole_ip_packet(peers):
    """Tunnel mode encrypts the datagram with its IP header (RFC 4303, 3.1.2); the receiver drops it without an inbound
    policy."""
    selector = xfrm.Selector(peers.here, peers.there, socket.IPPROTO_UDP, dport=peers.PORT)
    template = xfrm.Template(peers.here, peers.there, mode="tunnel")
    sa = dataclasses.replace(peers.sa(), mode="tunnel")
    xfrm.add(peers.client, xfrm.Policy(selector, template), sa)
    xfrm.add(peers.server, sa)
    server, client = peers.udp_server(), peers.udp_client()
    with peers.client.capture("esp") as packets:
        client.sendto(b"without a policy", peers.target)
        peers.server.await_counter("XfrmInNoPols", 1, within=5)
        xfrm.add(peers.server, xfrm.Policy(selector, template, direction="in"))
        client.sendto(PLAINTEXT, peers.target)
        assert server.recv(100) == PLAINTEXT

    _refused, packet = packets.exactly(2)
    header = 20 if peers.family == socket.AF_INET else 40
    padded = (header + 8 + len(PLAINTEXT) + 2 + 3) // 4 * 4
    assert len(packet.ip.payload) == 8 + 8 + padded + 16


def test_traffic_outside_the_selector_needs_no_sa(peers):
    """While the SA is missing, traffic outside the policy's selector passes in the clear (RFC 4301, 5.1)."""
    peers.add_policy(socket.SOCK_DGRAM)
    other, client = peers.udp_server(peers.PORT + 1), peers.udp_client()
    with peers.client.capture("udp") as packets:
        client.sendto(PLAINTEXT, peers.target)
        client.sendto(PLAINTEXT, (peers.there, peers.PORT + 1))
        assert other.recv(100) == PLAINTEXT

    assert [packet.layers.dport for packet in packets] == [peers.PORT + 1]
