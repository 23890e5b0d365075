"""Thousands of short connections over few ports, as a load generator or a reverse proxy makes them."""

import os

import pytest

from fixtures.topologies import LAN
from netns import at_most
from netns.hosts.hostsocket import HostSocket
from netns.traffic.closing import time_waits

pytestmark = pytest.mark.topology(LAN)

TIME_WAIT = 60
# Connections in much less than the second after which a pair may be taken over: in a longer round some ports are used twice, and
# others not.
AT_A_TIME = 200


def few_pages():
    """Each processor may keep up to 1 MiB of freed pages to itself (sysctl net.core.mem_pcpu_rsv)."""
    return at_most(256 * os.cpu_count())


def ports(client, count):
    client.pin({"net.ipv4.ip_local_port_range": f"40000 {40000 + count - 1}"})


def short_connections(service, count, first):
    """So many connections, one after the other, closed by both sides, `first` first. Raises OSError."""
    with service.client.entered():
        for _ in range(count):
            conn = HostSocket(service.family)
            conn.role = service.client.role
            conn.connect(service.address)
            peer, _address = service.listener.accept()
            for each in (peer, conn) if first == "server" else (conn, peer):
                each.close()


@pytest.fixture
def memory_comes_back(service, clock):
    """When TIME_WAIT is over nothing is in use that was not before."""
    before = service.server.counters()
    yield
    if clock.kind == "virtual":
        clock.sleep(TIME_WAIT + 10)
        assert (time_waits(service.client), time_waits(service.server)) == (0, 0)
        service.server.reaches("sockstat.TCP.alloc", at_most(0), 10, since=before["sockstat.TCP.alloc"])
        service.server.reaches("sockstat.TCP.mem", few_pages(), 10, since=before["sockstat.TCP.mem"])


@pytest.mark.parametrize("count", [5000, pytest.param(50000, marks=pytest.mark.mass)])
def test_a_server_that_closes_first_takes_every_connection(service, memory_comes_back, measure, count):
    """Eight ports are enough: each SYN takes over a pair in TIME_WAIT; no error and no SYN that is sent twice."""
    ports(service.client, 8)

    short_connections(service, count, first="server")

    assert 1 <= time_waits(service.server) <= 8
    assert service.server.counter("Tcp.PassiveOpens") == count
    assert measure("timewait.load.retransmitted", service.client.counter("Tcp.RetransSegs"), "segments") == 0


@pytest.mark.virtual_clock("TIME_WAIT has to grow a second old, several times")
@pytest.mark.parametrize("count", [2000, pytest.param(20000, marks=pytest.mark.mass)])
def test_a_client_that_closes_first_goes_on_with_tw_reuse(service, memory_comes_back, clock, count):
    """As many connections a second as there are ports, with tcp_tw_reuse=1; the ports are used over and over."""
    service.client.pin({"net.ipv4.tcp_tw_reuse": 1})
    ports(service.client, AT_A_TIME)

    for _ in range(count // AT_A_TIME):
        short_connections(service, AT_A_TIME, first="client")
        clock.sleep(1.1)

    assert time_waits(service.client) == AT_A_TIME
    assert service.client.counter("TcpExt.TWRecycled") == count - AT_A_TIME
