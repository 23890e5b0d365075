"""Router alert: packets that a router examines although they are not for it (RFC 2113, RFC 2711). RSVP and multicast
routing need it."""

import socket
import struct

import pytest

from fixtures.topologies import ROUTED
from netns.attempt import errno_of

pytestmark = pytest.mark.topology(ROUTED)

RSVP = 46
# include/uapi/linux/in.h, in6.h
IP_ROUTER_ALERT, IPV6_ROUTER_ALERT, IPV6_HOPOPTS = 5, 22, 54
ALERT = bytes.fromhex("94040000")


def hop_by_hop(value):
    """A hop-by-hop header with this router alert."""
    return struct.pack("!BBBBHBB", 0, 0, 5, 2, value, 1, 0)


def test_only_packets_with_a_router_alert_go_to_the_routers_socket(net, family):
    """The router's socket gets them instead of the destination, and may forward them. Over IPv6 it selects one value of
    the alert, over IPv4 those of its protocol."""
    client, server, router = net.nodes("client", "server", "router")
    program = router.socket(family, socket.SOCK_RAW, RSVP if family == socket.AF_INET else socket.IPPROTO_RAW)
    inbox = server.socket(family, socket.SOCK_RAW, RSVP)
    program.setblocking(False)
    sender = client.socket(family, socket.SOCK_RAW, RSVP)
    there = (server.address(family), 0)

    def send(mark, alert):
        """With this router alert, or none."""
        if family == socket.AF_INET:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"" if alert is None else ALERT)
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, IPV6_HOPOPTS, b"" if alert is None else hop_by_hop(alert))
        sender.sendto(mark, there)

    send(b"a", 1)
    if family == socket.AF_INET:
        program.setsockopt(socket.IPPROTO_IP, IP_ROUTER_ALERT, 1)
    else:
        program.setsockopt(socket.IPPROTO_IPV6, IPV6_ROUTER_ALERT, 1)
    send(b"b", None)
    send(b"c", 1)
    if family == socket.AF_INET6:
        send(b"d", 0)
    send(b"e", None)

    arrived = []
    inbox.settimeout(10)
    while b"e" not in arrived:
        arrived.append(inbox.recv(1000)[-1:])
    assert arrived == ([b"a", b"b", b"e"] if family == socket.AF_INET else [b"a", b"b", b"d", b"e"])
    assert program.recv(1000)[-1:] == b"c"
    assert errno_of(program.recv, 1000) == "EAGAIN"
