"""tcp_max_tw_buckets: the maximum number of TIME_WAIT sockets (ip-sysctl.rst)."""

import pytest

from fixtures.topologies import LAN
from netns import eventually
from netns.traffic.closing import fence, states, time_waits

pytestmark = pytest.mark.topology(LAN)

BUCKETS = "net.ipv4.tcp_max_tw_buckets"


@pytest.mark.parametrize("limit", [5, 1])
def test_connection_over_the_time_wait_limit_is_closed_at_once_and_counted(service, limit):
    """TCPTimeWaitOverflow counts it. The peer still sees an orderly close."""
    service.server.pin({BUCKETS: limit})

    for _ in range(limit + 3):
        service.closed()

    assert time_waits(service.server) == limit
    assert service.server.counter("TcpExt.TCPTimeWaitOverflow") == 3
    assert service.client.counter("Tcp.EstabResets") == 0


def test_port_pair_over_the_time_wait_limit_is_free_at_once(service):
    """Without TIME_WAIT nothing protects it: three connections in a row use the only other port."""
    service.client.pin({BUCKETS: 1, "net.ipv4.ip_local_port_range": "40000 40001"})
    held = service.closed("client")
    others = {service.closed("client").local[1] for _ in range(3)}

    assert others == {40000, 40001} - {held.local[1]}


def test_fin_wait2_counts_towards_the_time_wait_limit(service):
    """An orphan over the limit does not wait for the peer's FIN, and answers it with an RST."""
    service.server.pin({BUCKETS: 1})
    service.closed()
    conn, peer = service.connect()
    peer.close()
    eventually("states of the server's connections", lambda: states(service.server), ["TIME_WAIT"], within=5)

    with service.client.capture("tcp") as packets:
        conn.close()
        fence(service.client, service.server, service.address[0])

    assert [packet.flags for packet in packets] == ["FA", "R"]


def test_reuse_of_a_port_pair_in_time_wait_frees_its_bucket(service):
    """Another connection can then enter TIME_WAIT."""
    service.server.pin({BUCKETS: 1})
    closed = service.closed()
    conn, peer = service.connect(closed.remote[1])
    assert time_waits(service.server) == 0

    service.closed()

    assert time_waits(service.server) == 1
    assert service.server.counter("TcpExt.TCPTimeWaitOverflow") == 0
    conn.close(), peer.close()
