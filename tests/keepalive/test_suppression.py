"""When the connection is not idle, other timers watch the peer, and keepalive keeps quiet (net/ipv4/tcp_timer.c)."""

import pytest

from fixtures.topologies import LAN
from netns import firewall, keepalive, tcp_info, tcp_pair

pytestmark = pytest.mark.topology(LAN)


def test_no_probe_while_data_is_in_flight(net, family):
    """Retransmission finds out whether the peer lives; an idle connection beside it is probed meanwhile."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.tcp_retries2": 15})
    busy, _peer = tcp_pair(client, server, family)
    idle, _peer = tcp_pair(client, server, family)
    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        busy.sendall(b"x")
        for conn in (busy, idle):
            keepalive(conn, idle=1, interval=1, count=9)
        packets.until(lambda seen: len(seen.probes()) == 2, within=10)

    assert {probe.tcp.sport for probe in packets.probes()} == {idle.getsockname()[1]}
    from_busy = [packet for packet in packets.sent() if packet.tcp.sport == busy.getsockname()[1]]
    assert len(from_busy) >= 3 and all(packet.length == 1 for packet in from_busy)


def test_no_probe_while_the_window_is_closed(net, family):
    """With data waiting for a closed window the persist timer probes instead (RFC 9293, 3.8.6.1). Both kinds of probe
    look alike on the wire: the kernel's counters tell them apart."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.tcp_wmem": "4096 16384 16384"})
    server.pin({"net.ipv4.tcp_rmem": "4096 16384 16384"})
    conn, _peer = tcp_pair(client, server, family)
    conn.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            conn.send(bytes(65536))
    keepalive(conn, idle=1, interval=1, count=1)

    with client.capture("tcp") as packets:
        # A second connection, silent for twice as long, shows when keepalive's time has come.
        idle, _peer = tcp_pair(client, server, family)
        keepalive(idle, idle=2)
        packets.until(lambda seen: idle.getsockname()[1] in {probe.tcp.sport for probe in seen.probes()}, within=10)

    counters = client.counters()
    assert counters["TcpExt.TCPKeepAlive"] == 1
    assert counters["TcpExt.TCPWinProbe"] >= 1
    assert tcp_info(conn).state == "ESTABLISHED"
