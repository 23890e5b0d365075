"""A client with a local proxy, as reported: REDIRECT to a local port, and a second connection outwards."""

import socket

import pytest

from fixtures.topologies import DIRECTED
from netns import approx_timer, deliver, stopwatch, tcp_info, timer_slack
from netns.hosts import firewall
from netns.packets import pmtu

pytestmark = pytest.mark.topology(DIRECTED)

SO_MARK, PROXYS_OWN = 36, 1
DELIVERED_BY_TIMER = 0.1


@pytest.fixture
def proxied(net, service):
    """A function that connects through the proxy: the application's socket, the proxy's two and the real server's."""
    client = net["client"]
    listener = client.socket(service.family)
    listener.bind(("127.0.0.1" if service.family == socket.AF_INET else "::1", 0))
    listener.listen()

    def connect():
        application = client.socket(service.family)
        application.connect((service.address, service.port))
        inwards = client.adopt(listener.accept()[0])
        outwards = client.socket(service.family)
        outwards.setsockopt(socket.SOL_SOCKET, SO_MARK, PROXYS_OWN)
        outwards.settimeout(10)
        outwards.connect((service.address, service.port))
        return application, inwards, outwards, service.accept()

    with firewall.redirect(client, service.address, service.port, listener.getsockname()[1], unless_marked=PROXYS_OWN):
        yield connect


def pass_on(application, inwards, outwards, peer, count):
    """Send `count` bytes from the application through the proxy to the real server; returns the second leg's
    seconds."""
    deliver(application, inwards, count)
    with stopwatch() as took:
        deliver(outwards, peer, count)
    return took.seconds


def test_proxys_outward_connection_learns_the_tunnel_mtu(net, service, proxied):
    """The error passes the client's conntrack; the MSS of the application's own connection stays."""
    client = net["client"]
    application, inwards, outwards, peer = proxied()
    before = tcp_info(application).snd_mss
    with client.capture() as packets:
        pass_on(application, inwards, outwards, peer, service.largest(1500))

    assert [pmtu.announced(error) for error in pmtu.too_big(packets.received())] == [service.tunnel_mtu]
    assert tcp_info(outwards).snd_mss == service.largest(service.tunnel_mtu)
    assert tcp_info(application).snd_mss == before
    assert client.counter("TcpExt.TCPTimeouts") == 0


def test_proxys_idle_connection_stalls_no_longer_than_the_persist_timer(net, service, proxied, measure):
    """The reported case, as in test_stall.py: a request over a connection that the proxy keeps open takes 200 ms more
    after another one has lowered the path MTU."""
    first, second = proxied(), proxied()
    pass_on(*first, service.largest(1500))

    took = measure("pmtu.proxy.stall", pass_on(*second, service.largest(1500)), "s", timer_slack(0.2))

    assert took <= approx_timer(0.2).most
    assert tcp_info(second[2]).snd_mss == service.largest(service.tunnel_mtu)
    assert pass_on(*second, service.largest(1500)) < DELIVERED_BY_TIMER
