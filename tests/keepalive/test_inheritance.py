"""What an accepted socket inherits."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import keepalive, listen

pytestmark = pytest.mark.topology(LAN)


def test_accepted_socket_inherits_the_listeners_keepalive_options(net, family):
    """SO_KEEPALIVE and all three values (tcp(7); tcp_create_openreq_child() clones the listener)."""
    client, server = net.nodes("client", "server")
    listener = listen(server, family)
    keepalive(listener, idle=11, interval=7, count=5)
    client.socket(family).connect(listener.getsockname()[:2])

    accepted = server.adopt(listener.accept()[0])

    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    assert [accepted.getsockopt(socket.IPPROTO_TCP, name) for name in options] == [11, 7, 5]


def test_connection_is_probed_before_it_is_accepted(net, family):
    """The timer starts when the handshake is complete, not at accept()."""
    client, server = net.nodes("client", "server")
    listener = listen(server, family)
    keepalive(listener, idle=1)
    with server.capture("tcp") as packets:
        client.socket(family).connect(listener.getsockname()[:2])
        packets.until("a keepalive probe", lambda seen: seen.probes(), within=10)

    assert packets.probes()[0].sport == listener.getsockname()[1]
