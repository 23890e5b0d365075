"""A peer that never advertises a large window."""

import pytest

from fixtures.topologies import LAN
from netns import eventually, tcp_info
from netns.attempt import errno_of
from netns.hosts import firewall
from netns.packets import segment

pytestmark = pytest.mark.topology(LAN)

DEFAULT_MSS = 536                           # for a SYN without the option: RFC 9293, 3.7.1


@pytest.mark.parametrize("window, largest", [(536, 536), (537, 268), (1000, 500)])
def test_segment_fills_at_most_half_of_a_window_over_536_bytes(net, family, window, largest):
    """One segment can be sent while another is acknowledged; up to 536 bytes a segment may fill the window
    (tcp_bound_to_half_wnd())."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.tcp_timestamps": 0})
    conn, there = client.socket(family), (server.address(family), 4000)
    conn.setblocking(False)
    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        assert errno_of(conn.connect, there) == "EINPROGRESS"
        packets.until("the client's SYN", lambda seen: seen.sent(), within=5)
        seq = packets.sent()[0].seq
        segment.send(server, there, conn.getsockname()[:2], "SA", seq=5000, ack=seq + 1, window=window)
        eventually("state of the client's connection", lambda: tcp_info(conn).state, "ESTABLISHED", within=5)
        conn.send(bytes(2 * DEFAULT_MSS))

    assert tcp_info(conn).snd_mss == largest
    assert packets.sent().which("with data", lambda packet: packet.length)[0].length == largest
