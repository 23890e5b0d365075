"""IFF_BACKPRESSURE: tun stops its queue when the ring is full, instead of dropping (since 7.3)."""

import socket

import pytest

from fixtures.topologies import LAN
from netns.attempt import refused
from netns.hosts.qdisc import qdisc
from netns.hosts.tun import Flags, tun
from netns.packets.raw import HelloSender, outq, tx_queue, writable

pytestmark = pytest.mark.topology(LAN)

STUB = ("203.0.113.1/24", "fe80::1/64")
SNDBUF = 16384


def test_backpressure_fills_the_send_buffer_and_loses_nothing(net, family, measure):
    """Packets beyond the ring wait in the qdisc, charged to the sender, until ENOBUFS. A reader that resumes gets every
    Hello that was accepted, and the socket is writable again."""
    client = net["client"]
    sender = HelloSender(client, family)
    sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF)
    with tun(client, "stub", Flags.TUN | Flags.BACKPRESSURE, addresses=STUB) as stub, \
            qdisc(client, "stub", "pfifo", "limit", "1000"):
        with refused("ENOBUFS", "sending 5000 packets to a tun device without a reader"):
            sender.send_many(stub.index, 5000)
        assert (writable(sender.socket), stub.dropped()) == (False, 0)
        assert tx_queue(client, sender.socket) == outq(sender.socket) > 4 * SNDBUF

        taken = measure("rawbuf.backpressure.taken", sender.taken, "packets")
        assert (len(stub.drain()), stub.dropped()) == (taken, 0)
        assert (outq(sender.socket), writable(sender.socket)) == (0, True)


def test_tun_without_backpressure_still_drops(net, family):
    """The same qdisc holds nothing, and the ring's overflow is counted as dropped."""
    client = net["client"]
    sender = HelloSender(client, family)
    with tun(client, "stub", Flags.TUN, addresses=STUB) as stub, qdisc(client, "stub", "pfifo", "limit", "1000"):
        sender.send_many(stub.index, 1200)

        assert (outq(sender.socket), writable(sender.socket)) == (0, True)
        assert stub.dropped() == 1200 - stub.ring()
