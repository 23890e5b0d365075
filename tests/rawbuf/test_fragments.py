"""A fragmented datagram, and a send buffer with room for only some of its fragments."""

import socket

import pytest

from fixtures.topologies import LAN
from netns.attempt import errno_of
from netns.packets.raw import outq, writable

pytestmark = pytest.mark.topology(LAN)

EXPERIMENT = 253                            # RFC 3692


def test_datagram_that_exceeds_the_send_buffer_leaves_no_fragment(net, family):
    """ENOBUFS. No fragment is sent, stays charged or gets into the next datagram (ip_flush_pending_frames())."""
    client, server = net.nodes("client", "server")
    sender = client.socket(family, socket.SOCK_RAW, EXPERIMENT)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
    with client.capture() as packets:
        assert errno_of(sender.sendto, bytes(40000), (server.address(family), 0)) == "ENOBUFS"
        assert (outq(sender), writable(sender)) == (0, True)
        sender.sendto(b"small", (server.address(family), 0))

    packet = packets.sent().which("other than ICMP", lambda packet: packet.ip and packet.protocol not in ("icmp", "icmpv6")).only()
    assert packet.ip.payload.original == b"small"
