"""Thousands of short connections from few ports, as load generators and reverse proxies make them."""

import os

import pytest

from fixtures.topologies import LAN
from netns import at_most
from netns.hosts.hostsocket import HostSocket
from netns.traffic.closing import time_waits

pytestmark = pytest.mark.topology(LAN)

TIME_WAIT = 60
# Few enough to take much less than the 1 s after which a pair may be reused: in a longer round some ports are used twice, and
# others not at all.
AT_A_TIME = 200


def pages_kept_by_cpus():
    """Each CPU may reserve up to 1 MiB of freed pages (sysctl net.core.mem_pcpu_rsv)."""
    return at_most(256 * os.cpu_count())


def ports(client, count):
    client.pin({"net.ipv4.ip_local_port_range": f"40000 {40000 + count - 1}"})


def short_connections(service, count, first):
    """Open `count` connections one after the other; both sides close, `first` first. Raises OSError."""
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
    """After TIME_WAIT, TCP sockets and their memory are back at the level from before."""
    before = service.server.counters()
    yield
    if clock.kind == "virtual":
        clock.sleep(TIME_WAIT + 10)
        assert (time_waits(service.client), time_waits(service.server)) == (0, 0)
        service.server.await_counter("sockstat.TCP.alloc", at_most(0), 10, since=before["sockstat.TCP.alloc"])
        service.server.await_counter("sockstat.TCP.mem", pages_kept_by_cpus(), 10, since=before["sockstat.TCP.mem"])


@pytest.mark.parametrize("count", [5000, pytest.param(50000, marks=pytest.mark.mass)])
def test_server_that_closes_first_accepts_every_connection_from_8_ports(service, memory_comes_back, measure, count):
    """Each SYN takes over a port pair in TIME_WAIT: no error, and no SYN is retransmitted."""
    ports(service.client, 8)

    short_connections(service, count, first="server")

    assert 1 <= time_waits(service.server) <= 8
    assert service.server.counter("Tcp.PassiveOpens") == count
    assert measure("timewait.load.retransmitted", service.client.counter("Tcp.RetransSegs"), "segments") == 0


@pytest.mark.virtual_clock("waits until TIME_WAIT sockets are 1 s old, several times")
@pytest.mark.parametrize("count", [2000, pytest.param(20000, marks=pytest.mark.mass)])
def test_client_that_closes_first_reuses_its_ports_with_tw_reuse(service, memory_comes_back, clock, count):
    """tcp_tw_reuse=1 allows about as many connections per second as there are ports."""
    service.client.pin({"net.ipv4.tcp_tw_reuse": 1})
    ports(service.client, AT_A_TIME)

    for _ in range(count // AT_A_TIME):
        short_connections(service, AT_A_TIME, first="client")
        clock.sleep(1.1)

    assert time_waits(service.client) == AT_A_TIME
    assert service.client.counter("TcpExt.TWRecycled") == count - AT_A_TIME
