"""PMTU black holes: routers drop packets without an ICMP error, TCP probes (RFC 4821, tcp_mtu_probing)."""

import socket
import time

import pytest

from fixtures.topologies import ROUTED
from netns import at_least, deliver, tcp_info, tcp_pair, timer_slack
from netns.attempt import refused
from netns.hosts import offload
from netns.packets import pmtu

pytestmark = pytest.mark.topology(ROUTED)

HEADERS = {socket.AF_INET: 20 + 20 + 12, socket.AF_INET6: 40 + 20 + 12}

# Timeouts until TCP suspects a black hole: 3 by default, 1 here to save time.
RETRIES = 1


@pytest.fixture
def black_hole(net):
    """The server's interface will accept 1300 bytes, the router sends 1500: veth drops packets over its peer's MTU."""
    client, server = net.nodes("client", "server")
    # Unsegmented GSO packets would pass.
    offload.segment_in_software(client)
    offload.segment_in_software(net["router"])
    return server


def connect(net, family, probing, black_hole):
    """A connection whose MSS was negotiated before its path became a black hole."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.tcp_mtu_probing": probing, "net.ipv4.tcp_retries1": RETRIES})
    conn, peer = tcp_pair(client, server, family)
    # IPv6 needs an MTU of at least 1280 bytes.
    black_hole.run(["ip", "link", "set", "dev", "to-router", "mtu", "1300"])
    return conn, peer


def test_full_sized_data_never_passes_a_black_hole_without_mtu_probing(net, family, black_hole):
    """tcp_mtu_probing=0: TCP repeats the full-sized segment; 1000 bytes on a new connection arrive."""
    client, server = net.nodes("client", "server")
    conn, peer = connect(net, family, 0, black_hole)
    with client.capture() as packets:
        conn.sendall(bytes(2 * tcp_info(conn).snd_mss))
        client.await_counter("TcpExt.TCPTimeouts", at_least(3), within=60)

    assert pmtu.too_big(packets) == []
    assert tcp_info(conn).snd_mss == 1500 - HEADERS[family]
    peer.setblocking(False)
    with refused("EAGAIN", "recv() on the server behind the black hole"):
        peer.recv(1)
    deliver(*tcp_pair(client, server, family), 1000)


def test_mtu_probing_on_suspicion_escapes_a_black_hole(net, family, black_hole, measure):
    """1: after tcp_retries1 timeouts TCP suspects a black hole; the MSS falls to tcp_base_mss (1024), data arrives."""
    client = net["client"]
    conn, peer = connect(net, family, 1, black_hole)
    began = time.monotonic()
    deliver(conn, peer, 2 * tcp_info(conn).snd_mss, within=60)

    took = measure("pmtu.black_hole_escaped_after", time.monotonic() - began, "s", timer_slack(0.2, 0.4, 0.8))
    assert 0.2 < took < 20
    assert client.counter("TcpExt.TCPTimeouts") > RETRIES
    assert 1024 - 12 <= measure("pmtu.black_hole_mss", tcp_info(conn).snd_mss, "bytes") <= 1024


def test_mtu_probing_always_starts_from_tcp_base_mss(net, family, black_hole):
    """2: the initial MSS of tcp_base_mss (1024) avoids the black hole: no retransmission timeout."""
    client = net["client"]
    conn, peer = connect(net, family, 2, black_hole)
    # With or without the 12 bytes of timestamps.
    assert 1024 - 12 <= tcp_info(conn).snd_mss <= 1024

    deliver(conn, peer, 5000)

    assert client.counter("TcpExt.TCPTimeouts") == 0
