"""ICMP errors from routers behind a security gateway, whose addresses match no policy: RFC 4301, 6."""

import socket

import pytest

from fixtures.gateways import GATEWAYS, protect
from netns.packets import probe

pytestmark = pytest.mark.topology(GATEWAYS)

TIME_EXCEEDED = {socket.AF_INET: (11, 0), socket.AF_INET6: (3, 0)}
TTL_OF_INNER = 3


@pytest.mark.parametrize("kind", probe.KINDS)
def test_icmp_error_takes_the_esp_tunnel_of_the_packet_that_it_quotes(net, family, kind):
    """The client receives it, with no ICMP in the clear between the gateways. Kernels without "xfrm: introduce
    forwarding of ICMP Error messages" look up a policy for the router's own address, and find none."""
    client, server, right, inner = net.nodes("client", "server", "right", "inner")
    protect(net, family)

    with client.capture() as at_client, right.capture() as at_right:
        probe.probe(client, kind, client.address(family), server.address(family), TTL_OF_INNER)
        at_client.until("a response to the probe", probe.answers, within=5)

    answer = probe.answers(at_client).only()
    assert (answer.source, answer.kind) == (inner.address(family, "right"), TIME_EXCEEDED[family])
    to_left = [packet for packet in at_right.sent() if packet.interface == "to-left"]
    assert [packet for packet in to_left if packet.icmp and packet.destination == client.address(family)] == []
    assert [packet.protocol for packet in to_left].count("esp") == 1
