"""Thousands of checks from few ports: the reason for half-open checks."""

import pytest

from fixtures.topologies import LAN
from netns.attempt import refused
from netns.hosts.hostsocket import HostSocket
from netns.traffic.closing import fence, states, time_waits

pytestmark = pytest.mark.topology(LAN)

PORTS = 4


@pytest.fixture
def few_ports(service):
    service.client.pin({"net.ipv4.ip_local_port_range": f"40000 {40000 + PORTS - 1}"})


def checks(service, prepare, count):
    """Run `count` checks, one after the other. Raises OSError."""
    address = service.address
    with service.client.entered():
        for _ in range(count):
            with HostSocket(service.family) as conn:
                conn.role = service.client.role
                prepare(conn)
                conn.connect(address)


def no_options(conn):
    pass


@pytest.mark.parametrize("count", [2000, pytest.param(20000, marks=pytest.mark.mass)])
def test_half_open_checks_never_run_out_of_ports(service, few_ports, check, count):
    """Four ports, back to back, no EADDRNOTAVAIL; a server with a backlog of 1 never fills up."""
    service.listener.listen(1)

    checks(service, check.prepare, count)
    fence(service.client, service.server, service.address[0])

    counters = service.server.counters()
    assert (counters["TcpExt.EmbryonicRsts"], counters["Tcp.PassiveOpens"]) == (count, 0)
    assert counters["TcpExt.ListenDrops"] == counters["TcpExt.TCPReqQFullDoCookies"] == 0
    assert service.client.counter("Tcp.RetransSegs") == 0
    assert states(service.client) == states(service.server) == []


def test_ordinary_checks_run_out_of_ports(service, few_ports):
    """Each leaves its port in TIME_WAIT, or in FIN_WAIT2 until the server closes: EADDRNOTAVAIL at the fifth."""
    with refused("EADDRNOTAVAIL", f"connect() number {PORTS + 1} with {PORTS} ephemeral ports"):
        checks(service, no_options, PORTS + 1)

    assert service.server.counter("Tcp.PassiveOpens") == PORTS


def test_port_of_an_ordinary_check_in_time_wait_cannot_be_bound(service):
    """EADDRINUSE without SO_REUSEADDR, while TIME_WAIT lasts (socket(7))."""
    closed = service.closed("client", port=40000)
    again = service.client.socket(service.family)

    with refused("EADDRINUSE", "bind() to a port in TIME_WAIT"):
        again.bind(closed.local)

    assert time_waits(service.client) == 1
