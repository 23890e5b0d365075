"""tcp_tw_reuse: when connect() may reuse a port pair that the same host has in TIME_WAIT (ip-sysctl.rst)."""

import errno
import socket
import time

import pytest

from fixtures.topologies import LAN
from netns import TICK, MissingFeature, approx_timer, eventually, timer_slack
from netns.traffic.closing import TCP_QUEUE_SEQ, Service, repair, time_waits

pytestmark = pytest.mark.topology(LAN)

REUSE = "net.ipv4.tcp_tw_reuse"
REUSE_DELAY = "net.ipv4.tcp_tw_reuse_delay"     # ms; kernels without it wait for the clock's next full second
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
    """The client; its reuse delay is 1 s where the kernel has that sysctl."""
    if delay_is_tunable(service.client):
        service.client.pin({REUSE_DELAY: 1000})
    return service.client


def wait_on_loopback(client, family):
    """A service on the client's loopback; its port pair with the client's only port is in TIME_WAIT."""
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


def test_tw_reuse_0_means_never_1_always_and_2_on_loopback_only(service, client, clock):
    """1 s after the close. TWRecycled counts each reuse."""
    local = wait_on_loopback(client, service.family)
    service.closed("client")
    clock.sleep(1.05)

    allowed = {}
    for reuse in (0, 2, 1):
        client.pin({REUSE: reuse})
        allowed[reuse] = (connects(service), reuse != 1 and connects(local))

    assert allowed == {0: (False, False), 2: (False, True), 1: (True, False)}
    assert client.counter("TcpExt.TWRecycled") == 2


def test_tw_reuse_defaults_to_loopback_only(service):
    """2 since 4.19 ("tcp: enable TCP TIME-WAIT reuse for loopback"). A new namespace has the default."""
    fresh = type(service.client)("fresh")
    with fresh:
        assert fresh.sysctl(REUSE) == "2"


@pytest.mark.parametrize("reuse", [1, 2])
def test_tw_reuse_needs_timestamps(service, client, clock, reuse):
    """Without them nothing protects the new connection from old segments: EADDRNOTAVAIL."""
    for host in (client, service.server):
        host.pin({"net.ipv4.tcp_timestamps": 0})
    local = wait_on_loopback(client, service.family)
    service.closed("client")
    client.pin({REUSE: reuse})
    clock.sleep(1.05)

    assert (connects(service), connects(local)) == (False, False)


@pytest.mark.parametrize("milliseconds", [1000, 300])
def test_port_pair_is_reused_after_the_tw_reuse_delay(service, client, clock, measure, milliseconds):
    """Counted from the last segment. Kernels without this sysctl wait for the clock's next full second."""
    only_port(client)
    client.pin({REUSE: 1})
    tunable = delay_is_tunable(client)
    if tunable:
        client.pin({REUSE_DELAY: milliseconds})
    elif milliseconds != 1000:
        raise MissingFeature(f"the kernel has no sysctl {REUSE_DELAY}")
    clock.sleep((1.25 - time.monotonic()) % 1)

    with client.capture("tcp") as packets:
        service.closed("client")
        eventually("the client's connect() succeeds", lambda: connects(service), True, within=10, every=TICK)

    seen = packets.packets()
    last_ack, syn = seen[-4], seen[-3]
    since_boot = last_ack.time - time.time() + time.monotonic()
    expected = milliseconds / 1000 if tunable else 1 - since_boot % 1
    took = syn.time - last_ack.time
    assert measure(f"timewait.reuse_delay_{milliseconds}", took, "s", timer_slack(expected)) == approx_timer(expected)


def test_tcp_repair_on_a_port_pair_in_time_wait_keeps_its_sequence_number(service, client, clock):
    """With TCP_REPAIR, tcp_twsk_unique() does not replace the sequence number that was set."""
    only_port(client)
    client.pin({REUSE: 1})
    service.closed("client")
    clock.sleep(1.05)
    conn = client.socket(service.family)
    repair(conn, 1_000_000)

    conn.connect(service.address)

    assert conn.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) == 1_000_000
    assert time_waits(client) == 0


def test_reused_port_pair_gets_an_isn_beyond_the_old_sequence_numbers(service, client, clock):
    """ISN = SND.NXT + 65535 + 2: the peer accepts the first SYN."""
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
    """The peer has not closed: it may still send data."""
    only_port(client)
    client.pin({REUSE: 1})
    conn, _peer = service.connect()
    conn.close()
    clock.sleep(1.05)

    assert (time_waits(client), connects(service)) == (1, False)
