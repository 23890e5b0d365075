"""Packets that a router is to look at although they are not for it: RFC 2113, RFC 2711. RSVP and multicast routing live on it."""

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
    """A router alert of this value, padded."""
    return struct.pack("!BBBBHBB", 0, 0, 5, 2, value, 1, 0)


def test_a_packet_that_asks_for_it_goes_to_the_routers_program_and_no_other_does(net, family):
    """The program has it instead of the packet's destination, and forwards it or not. IPv6 has kinds of alerts, of which a program
    asks for one; over IPv4 it is those of its protocol."""
    client, server, router = net.nodes("client", "server", "router")
    program = router.socket(family, socket.SOCK_RAW, RSVP if family == socket.AF_INET else socket.IPPROTO_RAW)
    inbox = server.socket(family, socket.SOCK_RAW, RSVP)
    program.setblocking(False)
    sender = client.socket(family, socket.SOCK_RAW, RSVP)
    there = (server.address(family), 0)

    def send(mark, alert):
        """With an alert of this kind, None for none."""
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
