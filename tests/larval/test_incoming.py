"""Incoming ESP for an SPI that is reserved but has no keys yet, or is unknown."""

import socket

import pytest

from fixtures.topologies import LAN
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)


def reserve(host, sa):
    """Create a larval SA with an SPI, as a key daemon does before its proposal (RFC 7296, 2.8)."""
    host.run([
        "ip", "xfrm", "state", "allocspi", "src", sa.source, "dst", sa.destination, "proto", "esp",
        "reqid", str(sa.reqid), "mode", sa.mode, "min", hex(sa.spi), "max", hex(sa.spi),
    ])


def test_esp_packet_for_a_larval_sa_is_dropped_and_counted(peers):
    """The peer may send before the negotiation is over; XfrmAcquireError counts it
    (Documentation/networking/xfrm_proc.rst). With keys installed, its next packet is accepted."""
    peers.add_policy(socket.SOCK_DGRAM)
    peers.add_sa()
    reserve(peers.server, peers.sa())
    server, client = peers.udp_server(), peers.udp_client()

    client.sendto(b"too early", peers.target)
    peers.server.await_counter("XfrmAcquireError", 1, within=5)
    xfrm.update(peers.server, peers.sa())
    client.sendto(b"in time", peers.target)

    assert server.recv(100) == b"in time"
    assert peers.server.counter("XfrmInNoStates") == 0


def test_esp_packet_for_an_unknown_spi_is_dropped_and_counted(peers):
    """XfrmInNoStates counts it; once the SA is added, packets pass."""
    peers.add_policy(socket.SOCK_DGRAM)
    peers.add_sa()
    server, client = peers.udp_server(), peers.udp_client()

    client.sendto(b"too early", peers.target)
    peers.server.await_counter("XfrmInNoStates", 1, within=5)
    xfrm.add(peers.server, peers.sa())
    client.sendto(b"in time", peers.target)

    assert server.recv(100) == b"in time"
