"""On a connection that is not idle other timers watch the peer, and keepalive is silent (net/ipv4/tcp_timer.c)."""

import pytest

from fixtures.topologies import LAN
from netns import at_least, keepalive, tcp_info, tcp_pair, zero_window_pair
from netns.hosts import firewall

pytestmark = pytest.mark.topology(LAN)


def from_port(packets, conn):
    return [packet for packet in packets.sent() if packet.sport == conn.getsockname()[1]]


def test_no_probe_while_data_is_in_flight(net, family):
    """Retransmission detects a dead peer; an idle connection is probed meanwhile."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.tcp_retries2": 15})
    busy, _peer = tcp_pair(client, server, family)
    idle, _peer = tcp_pair(client, server, family)
    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        busy.sendall(b"x")
        for conn in (busy, idle):
            keepalive(conn, idle=1, interval=1, count=9)
        # The RTO depends on the round trip, which is long on a busy machine.
        packets.until("2 keepalive probes and 3 segments of the busy connection",
                      lambda seen: len(seen.probes()) >= 2 and len(from_port(seen, busy)) >= 3, within=20)

    assert {probe.sport for probe in packets.probes()} == {idle.getsockname()[1]}
    assert {packet.length for packet in from_port(packets, busy)} == {1}


def test_no_keepalive_probe_while_the_peers_window_is_closed(net, family):
    """With data queued for a closed window the persist timer probes instead (RFC 9293, 3.8.6.1). Both kinds of probe
    look alike on the wire: the kernel's counters tell them apart."""
    client, server = net.nodes("client", "server")
    conn, _peer = zero_window_pair(client, server, family)
    keepalive(conn, idle=1, interval=1, count=1)

    with client.capture("tcp") as packets:
        # A second connection, with twice the idle time, shows that keepalive was due.
        idle, _peer = tcp_pair(client, server, family)
        keepalive(idle, idle=2)
        packets.until("a keepalive probe of the idle connection",
                      lambda seen: idle.getsockname()[1] in {probe.sport for probe in seen.probes()}, within=10)

    client.await_counter("TcpExt.TCPWinProbe", at_least(1), within=10)
    assert client.counter("TcpExt.TCPKeepAlive") == 1
    assert tcp_info(conn).state == "ESTABLISHED"
