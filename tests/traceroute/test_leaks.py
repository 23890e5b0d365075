"""A router keeps nothing of the packets whose TTL ended there."""

import socket

import pytest

from fixtures.topologies import ROUTED
from netns import errqueue
from netns.attempt import so_error

pytestmark = pytest.mark.topology(ROUTED)
TIMES = 20


def test_expired_packets_and_their_answers_are_given_back(net, family, given_back):
    """The probe, the router's time exceeded, and the prober's error queue."""
    client, server = net.nodes("client", "server")
    sock = client.socket(family, socket.SOCK_DGRAM)
    level, option = (socket.IPPROTO_IP, socket.IP_TTL) if family == socket.AF_INET else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
    sock.setsockopt(level, option, 1)
    errqueue.receive_errors(sock)

    def use():
        for _ in range(TIMES):
            sock.sendto(b"x", (server.address(family), 33434))
            assert errqueue.next_error(sock).offender == net["router"].address(family, peer="client")
            so_error(sock)

    given_back(use, TIMES)
