"""Packets that lie in a tun device's ring are given back with it."""

import pytest

from fixtures.topologies import LAN
from netns.raw import HelloSender
from netns.tun import Flags, tun

pytestmark = pytest.mark.topology(LAN)
TIMES = 20


@pytest.mark.parametrize("read", [True, False], ids=("read", "unread"))
def test_packets_through_a_tun_device_are_given_back(net, family, given_back, read):
    """Whoever reads them or not: tun_do_read(), tun_queue_purge()."""
    client = net["client"]

    def use():
        sender = HelloSender(client, family)
        with tun(client, "stub", Flags.TUN, addresses=("203.0.113.1/24", "fe80::1/64")) as stub:
            sender.send_many(stub.index, TIMES)
            if read:
                stub.drain()
        sender.socket.close()

    given_back(use, TIMES)
