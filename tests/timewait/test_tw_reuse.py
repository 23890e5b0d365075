"""tcp_tw_reuse: when connect() may take a pair of ports that this host itself has in TIME_WAIT (ip-sysctl.rst)."""

import errno
import socket
import time

import pytest

from fixtures.topologies import LAN
from netns import TICK, MissingFeature, approx_timer, eventually, timer_slack
from netns.traffic.closing import TCP_QUEUE_SEQ, Service, repair, time_waits

pytestmark = pytest.mark.topology(LAN)

REUSE = "net.ipv4.tcp_tw_reuse"
REUSE_DELAY = "net.ipv4.tcp_tw_reuse_delay"     # ms; before it came it was until the clock's next full second
PORT = 40000
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def delay_is_tunable(host):
    try:
        host.sysctl(REUSE_DELAY)
    except FileNotFoundError:
        return False
    return True


@pytest.fixture
def client(service):
    """The client; it has one port to connect from, whose pair with the service's is in TIME_WAIT."""
    if delay_is_tunable(service.client):
        service.client.pin({REUSE_DELAY: 1000})
    return service.client


def wait_on_loopback(client, family):
    """A service of the client's own, whose pair with the only port is in TIME_WAIT on it."""
    listener = client.socket(family)
    listener.bind((LOOPBACK[family], 0))
    listener.listen()
    service = Service(client, client, listener)
    only_port(client)
    conn, peer = service.connect()
    conn.close()
    assert peer.recv(1) == b""
    peer.close()
    eventually("connections of client in TIME_WAIT", lambda: time_waits(client), 1, within=5)
    return service


def only_port(client):
    client.pin({"net.ipv4.ip_local_port_range": f"{PORT} {PORT}"})


def connects(service):
    try:
        service.connect()
    except OSError as error:
        assert error.errno == errno.EADDRNOTAVAIL, error
        return False
    return True


def test_0_is_never_1_is_always_2_is_on_loopback_only(service, client, clock):
    """A second after the end; each pair that is taken counts as TWRecycled."""
    local = wait_on_loopback(client, service.family)
    service.closed("client")
    clock.sleep(1.05)

    allowed = {}
    for reuse in (0, 2, 1):
        client.pin({REUSE: reuse})
        allowed[reuse] = (connects(service), reuse != 1 and connects(local))

    assert allowed == {0: (False, False), 2: (False, True), 1: (True, False)}
    assert client.counter("TcpExt.TWRecycled") == 2


def test_the_default_is_loopback_only(service):
    """2 since 4.19: "tcp: enable TCP TIME-WAIT reuse for loopback"; a new namespace has the default."""
    fresh = type(service.client)("fresh")
    with fresh:
        assert fresh.sysctl(REUSE) == "2"


@pytest.mark.parametrize("reuse", [1, 2])
def test_it_needs_timestamps(service, client, clock, reuse):
    """Without them nothing protects the new connection from the old one's segments: EADDRNOTAVAIL."""
    for host in (client, service.server):
        host.pin({"net.ipv4.tcp_timestamps": 0})
    local = wait_on_loopback(client, service.family)
    service.closed("client")
    client.pin({REUSE: reuse})
    clock.sleep(1.05)

    assert (connects(service), connects(local)) == (False, False)


@pytest.mark.parametrize("milliseconds", [1000, 300])
def test_a_pair_is_taken_no_sooner_than_after_the_delay(service, client, clock, measure, milliseconds):
    """tcp_tw_reuse_delay after the last segment; on kernels without it when the clock's next full second has come."""
    only_port(client)
    client.pin({REUSE: 1})
    tunable = delay_is_tunable(client)
    if tunable:
        client.pin({REUSE_DELAY: milliseconds})
    elif milliseconds != 1000:
        raise MissingFeature(f"there is no sysctl {REUSE_DELAY}")
    clock.sleep((1.25 - time.monotonic()) % 1)

    with client.capture("tcp") as packets:
        service.closed("client")
        eventually("whether the client connects", lambda: connects(service), True, within=10, every=TICK)

    seen = packets.packets()
    last_ack, syn = seen[-4], seen[-3]
    since_boot = last_ack.time - time.time() + time.monotonic()
    expected = milliseconds / 1000 if tunable else 1 - since_boot % 1
    took = syn.time - last_ack.time
    assert measure(f"timewait.reuse_delay_{milliseconds}", took, "s", timer_slack(expected)) == approx_timer(expected)


def test_a_restored_connection_keeps_its_own_numbers(service, client, clock):
    """TCP_REPAIR: no SYN is sent, and the pair in TIME_WAIT lends the sequence number none of its own (tcp_twsk_unique())."""
    only_port(client)
    client.pin({REUSE: 1})
    service.closed("client")
    clock.sleep(1.05)
    conn = client.socket(service.family)
    repair(conn, 1_000_000)

    conn.connect(service.address)

    assert conn.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) == 1_000_000
    assert time_waits(client) == 0


def test_the_new_connection_goes_on_past_the_old_ones_numbers(service, client, clock):
    """ISN = SND.NXT + 65535 + 2, and a later TSval: the peer takes it for what it is."""
    only_port(client)
    client.pin({REUSE: 1})
    closed = service.closed("client", data=b"hello")
    clock.sleep(1.05)

    with client.capture("tcp") as packets:
        conn, peer = service.connect()

    syn = packets.packets()[0]
    assert (syn.seq - closed.snd_nxt) % 2**32 == 65537
    assert [packet.flags for packet in packets] == ["S", "SA", "A"]
    conn.sendall(b"new data")
    assert peer.recv(100) == b"new data"


def test_fin_wait2_is_not_reused(service, client, clock):
    """The peer has not closed yet: its data could still come."""
    only_port(client)
    client.pin({REUSE: 1})
    conn, _peer = service.connect()
    conn.close()
    clock.sleep(1.05)

    assert (time_waits(client), connects(service)) == (1, False)
