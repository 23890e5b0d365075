"""A path whose routers drop what does not fit and tell nobody: TCP's own probing (RFC 4821, tcp_mtu_probing)."""

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

# Timeouts until a black hole is suspected: 3 by default; with 1 the tests wait less.
RETRIES = 1


@pytest.fixture
def black_hole(net):
    """The server's interface will take 1300 bytes, the router sends it 1500: veth drops what is over its peer's MTU."""
    client, server = net.nodes("client", "server")
    # Whole GSO packets would pass.
    offload.segment_in_software(client)
    offload.segment_in_software(net["router"])
    return server


def connect(net, family, probing, black_hole):
    """A connection whose MSS was negotiated before its path turned black."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.tcp_mtu_probing": probing, "net.ipv4.tcp_retries1": RETRIES})
    conn, peer = tcp_pair(client, server, family)
    # IPv6 takes no interface under 1280 bytes.
    black_hole.run(["ip", "link", "set", "dev", "to-router", "mtu", "1300"])
    return conn, peer


def test_without_probing_the_data_never_arrives(net, family, black_hole):
    """tcp_mtu_probing=0: the full segment is sent again and again; a small one on a new connection arrives."""
    client, server = net.nodes("client", "server")
    conn, peer = connect(net, family, 0, black_hole)
    with client.capture() as packets:
        conn.sendall(bytes(2 * tcp_info(conn).snd_mss))
        client.reaches("TcpExt.TCPTimeouts", at_least(3), within=60)

    assert pmtu.too_big(packets) == []
    assert tcp_info(conn).snd_mss == 1500 - HEADERS[family]
    peer.setblocking(False)
    with refused("EAGAIN", "recv() behind the black hole"):
        peer.recv(1)
    deliver(*tcp_pair(client, server, family), 1000)


def test_probing_on_suspicion_finds_a_smaller_size(net, family, black_hole, measure):
    """1: after tcp_retries1 timeouts a black hole is suspected; the MSS falls to tcp_base_mss (1024), data arrives."""
    client = net["client"]
    conn, peer = connect(net, family, 1, black_hole)
    began = time.monotonic()
    deliver(conn, peer, 2 * tcp_info(conn).snd_mss, within=60)

    took = measure("pmtu.black_hole_escaped_after", time.monotonic() - began, "s", timer_slack(0.2, 0.4, 0.8))
    assert 0.2 < took < 20
    assert client.counter("TcpExt.TCPTimeouts") > RETRIES
    assert tcp_info(conn).snd_mss <= 1024


def test_probing_always_begins_small(net, family, black_hole):
    """2: the MSS begins at tcp_base_mss (1024) and there is no black hole to fall into: no timeout, no loss."""
    client = net["client"]
    conn, peer = connect(net, family, 2, black_hole)
    assert tcp_info(conn).snd_mss <= 1024

    deliver(conn, peer, 5000)

    assert client.counter("TcpExt.TCPTimeouts") == 0
