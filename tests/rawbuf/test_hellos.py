"""A routing daemon has one raw socket for all interfaces: an unread tun must not use up its send buffer."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import Link, Topology, build, eventually
from netns.hosts.tun import tun
from netns.packets.raw import HelloReceiver, HelloSender, outq, tx_queue, writable

AREA = Topology(links=(
    Link("router", "east", ipv4="192.0.2.0/24", ipv6="2001:db8:1::/64"),
    Link("router", "west", ipv4="198.51.100.0/24", ipv6="2001:db8:2::/64"),
))
STUB = ("203.0.113.1/24", "fe80::1/64")
NEIGHBOURS = ("east", "west")
HELLO_INTERVAL = 30                             # seconds: RFC 2328, C.3, sample value for an X.25 network
FAMILIES = (socket.AF_INET, socket.AF_INET6)


def send_everywhere(sender, indexes):
    """Send a Hello on each interface; return the bytes of send buffer in use."""
    for index in indexes:
        sender.send(index)
    return outq(sender.socket)


@pytest.mark.topology(AREA)
def test_unread_tun_uses_no_send_buffer(net, family, measure):
    """The tun driver orphans a packet before it queues it (skb_orphan() in tun_net_xmit()): after 1200 Hellos tx_queue is
    0 and the socket writable, the neighbours have got all, and tun has dropped what its 500 slots cannot hold."""
    router = net["router"]
    receivers = [HelloReceiver(net[role], family, "router") for role in NEIGHBOURS]
    sender = HelloSender(router, family)
    with tun(router, "stub", addresses=STUB) as stub:
        indexes = [*(router.interfaces[role].index for role in NEIGHBOURS), stub.index]
        peak = 0
        for sent in range(100, 1201, 100):
            peak = max(peak, *(send_everywhere(sender, indexes) for _ in range(100)))
            # In batches: the kernel would drop a backlog of more than net.core.netdev_max_backlog.
            eventually("datagrams that arrived at each receiver", lambda: [receiver.arrived() for receiver in receivers],
                       [sent, sent], within=5)

        assert measure("rawbuf.unread_tun.peak_outq", peak, "B") == 0
        assert tx_queue(router, sender.socket) == 0
        assert writable(sender.socket)
        assert stub.dropped() == 1200 - stub.ring()


@pytest.mark.virtual_clock("sends Hellos for a day, one every 30 s")
def test_neighbour_misses_no_hello_in_a_day_with_an_unread_tun(clock, measure):
    """2880 Hellos per interface and family, ten times what a send buffer holds: no send fails, tx_queue is 0 every hour,
    and a reader that starts at the end gets what the tun's ring holds."""
    hellos, hour, queued = 86400 // HELLO_INTERVAL, 3600 // HELLO_INTERVAL, set()
    # No capture, and one day for both families: the wake-ups are expensive.
    with build(LAN) as net, tun(net["client"], "stub", addresses=STUB) as stub:
        router, neighbour = net.nodes("client", "server")
        receivers = [HelloReceiver(neighbour, family, "client") for family in FAMILIES]
        senders = [HelloSender(router, family) for family in FAMILIES]
        for number in range(hellos):
            for sender in senders:
                sender.send(router.interfaces["server"].index)
                sender.send(stub.index)
            clock.sleep(HELLO_INTERVAL)
            if number % hour == 0:
                queued.update(tx_queue(router, sender.socket) for sender in senders)

        assert measure("rawbuf.day.peak_tx_queue", max(queued), "B") == 0
        assert [writable(sender.socket) for sender in senders] == [True, True]
        assert [receiver.arrived() for receiver in receivers] == [hellos, hellos]
        assert measure("rawbuf.day.dropped", stub.dropped(), "packets") == 2 * hellos - stub.ring()
        assert len(stub.drain()) == stub.ring()
