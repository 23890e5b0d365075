"""A security gateway in tunnel mode: forwarded packets that need a missing SA (RFC 4301, 5.1)."""

import socket

import pytest

from netns import Link, Topology, approx_timer, stopwatch
from netns.netlink import xfrm

GATEWAY = Topology(links=(
    Link("client", "gateway", ipv4="192.0.2.0/24", ipv6="2001:db8:1::/64"),
    Link("gateway", "server", ipv4="198.51.100.0/24", ipv6="2001:db8:2::/64"),
))
pytestmark = pytest.mark.topology(GATEWAY)
PORT, SPI = 4000, 0x3000C0DE
LIMIT = 101


def forwarded_flow(net, family):
    """(sender, receiver, target, add_sa): sockets of client and server, and a function that adds the gateway's SA."""
    client, gateway, server = net.nodes("client", "gateway", "server")
    gateway.pin({"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
    source, target = client.address(family), server.address(family)
    near, far = gateway.address(family, "client"), gateway.address(family, "server")
    client.run(["ip", "route", "add", "default", "via", near])
    server.run(["ip", "route", "add", "default", "via", far])
    template = xfrm.Template(far, target, mode="tunnel")
    selector = xfrm.Selector(source, target, socket.IPPROTO_UDP, dport=PORT)
    sa = xfrm.SA(far, target, SPI, mode="tunnel")
    xfrm.add(gateway, xfrm.Policy(selector, template))
    xfrm.add(server, sa, xfrm.Policy(selector, template, direction="in"))

    sender, receiver = client.socket(family, socket.SOCK_DGRAM), server.socket(family, socket.SOCK_DGRAM)
    receiver.bind((target, PORT))
    receiver.settimeout(10)
    return sender, receiver, (target, PORT), lambda: xfrm.add(gateway, sa)


def test_forwarded_packets_are_held_until_the_sa_is_added(net, family, larval_drop, clock):
    """They leave in order through the tunnel when the hold timer next fires."""
    larval_drop(0, role="gateway")
    sender, receiver, target, add_sa = forwarded_flow(net, family)
    clock.align(1)
    with net["gateway"].capture() as packets, stopwatch() as took:
        for number in range(10):
            sender.sendto(b"%d" % number, target)
        clock.sleep(0.2)
        add_sa()
        assert [receiver.recv(100) for _ in range(10)] == [b"%d" % number for number in range(10)]

    assert took.seconds == approx_timer(0.1, 0.2)
    beyond = [packet for packet in packets.sent() if packet.interface == "to-server"]
    assert [packet.spi for packet in beyond if packet.protocol == "esp"] == [SPI] * 10
    assert [packet for packet in beyond if packet.protocol == "udp"] == []


def test_forwarded_packets_are_dropped_with_larval_drop(net, family, larval_drop):
    """XfrmOutNoStates counts each; a packet sent after adding the SA passes."""
    larval_drop(1, role="gateway")
    sender, receiver, target, add_sa = forwarded_flow(net, family)

    for _ in range(3):
        sender.sendto(b"too early", target)
    net["gateway"].await_counter("XfrmOutNoStates", 3, within=5)
    add_sa()
    sender.sendto(b"in time", target)

    assert receiver.recv(100) == b"in time"


def test_forwarded_packets_beyond_the_hold_queue_limit_are_dropped(net, family, larval_drop, clock):
    """No local sender can get EAGAIN: the first 101 arrive, the others do not."""
    larval_drop(0, role="gateway")
    sender, receiver, target, add_sa = forwarded_flow(net, family)

    for number in range(LIMIT + 5):
        sender.sendto(b"%d" % number, target)
    # A busy gateway may process the packets later than the sender sent them.
    clock.sleep(0.5)
    add_sa()
    assert [receiver.recv(100) for _ in range(LIMIT)] == [b"%d" % number for number in range(LIMIT)]
    sender.sendto(b"after", target)

    assert receiver.recv(100) == b"after"
