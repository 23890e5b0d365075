"""The receiver's side: an SPI that is reserved, but has no keys yet."""

import socket

import pytest

from fixtures.topologies import LAN
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)


def reserve(host, sa):
    """A larval SA that has its SPI already: what a key daemon makes before it proposes (RFC 7296, 2.8)."""
    host.run([
        "ip", "xfrm", "state", "allocspi", "src", sa.source, "dst", sa.destination, "proto", "esp",
        "reqid", str(sa.reqid), "mode", sa.mode, "min", hex(sa.spi), "max", hex(sa.spi),
    ])


def test_packets_for_a_larval_sa_are_dropped_and_counted(peers):
    """The peer may be faster than the negotiation: XfrmAcquireError (Documentation/networking/xfrm_proc.rst), and once
    the keys are there its next packet is taken."""
    peers.add_policy(socket.SOCK_DGRAM)
    peers.supply()
    reserve(peers.server, peers.sa())
    server, client = peers.udp_server(), peers.udp_client()

    client.sendto(b"too early", peers.target)
    peers.server.reaches("XfrmAcquireError", 1, within=5)
    xfrm.update(peers.server, peers.sa())
    client.sendto(b"in time", peers.target)

    assert server.recv(100) == b"in time"
    assert peers.server.counter("XfrmInNoStates") == 0


def test_packets_for_no_sa_are_dropped_and_counted(peers):
    """The receiver has not even reserved the SPI: XfrmInNoStates."""
    peers.add_policy(socket.SOCK_DGRAM)
    peers.supply()
    server, client = peers.udp_server(), peers.udp_client()

    client.sendto(b"too early", peers.target)
    peers.server.reaches("XfrmInNoStates", 1, within=5)
    xfrm.add(peers.server, peers.sa())
    client.sendto(b"in time", peers.target)

    assert server.recv(100) == b"in time"
