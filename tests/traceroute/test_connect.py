"""connect() as a probe with a small IP_TTL or IPV6_UNICAST_HOPS, as in `traceroute -T` without privileges."""

import pytest

from fixtures.icmp_errors import TIME_EXCEEDED, V4
from fixtures.topologies import ROUTED
from netns import approx_timer, eventually, listen, tcp_info, timer_slack
from netns.attempt import WAYS, attempt, errno_name, events, so_error
from netns.hosts.qdisc import qdisc
from netns.packets import errqueue
from netns.packets.probe import set_ttl

pytestmark = pytest.mark.topology(ROUTED)


@pytest.fixture
def short_lived(net, family):
    """A TCP socket of the client with TTL 1, and the address of a listener behind the router."""
    client, server = net.nodes("client", "server")
    conn = client.socket(family)
    set_ttl(conn, 1)
    return conn, listen(server, family).getsockname()[:2]


@pytest.mark.parametrize("way", WAYS)
def test_time_exceeded_ends_connect_with_ehostunreach(net, family, short_lived, way, measure):
    """A time exceeded that arrives after 10 ms: EHOSTUNREACH at once, after one SYN (RFC 5461, 2.2; tcp_v4_err())."""
    conn, target = short_lived
    with qdisc(net["client"], "to-router", "netem", "delay", "10ms"), net["client"].capture("tcp") as packets:
        outcome = attempt(conn, target, way)

    assert outcome.error == "EHOSTUNREACH"
    assert 0.01 <= measure(f"traceroute.connect_expired.{way}", outcome.seconds, "s", timer_slack(0)) < 0.5
    assert len(packets.sent()) == 1


def test_time_exceeded_on_a_locked_socket_takes_effect_at_the_next_syn(net, family, short_lived, clock, measure):
    """Over a bare link the error arrives while connect() holds the socket lock: the kernel only records it
    (LockDroppedIcmps, sk_err_soft). The answer to the next SYN, after 1 s, ends connect(): EHOSTUNREACH."""
    client = net["client"]
    clock.align(2)
    conn, target = short_lived
    outcome = attempt(conn, target, "blocking")

    assert outcome.error == "EHOSTUNREACH"
    assert measure("traceroute.connect_expired_at_once", outcome.seconds, "s", timer_slack(1)) == approx_timer(1)
    assert client.counter("TcpExt.LockDroppedIcmps") == 1


def test_so_error_returns_the_soft_error_in_syn_sent(net, family, short_lived):
    """SO_ERROR of a nonblocking socket returns EHOSTUNREACH within 0.5 s; the socket stays in SYN_SENT."""
    conn, target = short_lived
    conn.setblocking(False)
    conn.connect_ex(target)

    eventually("SO_ERROR of the client's connection", lambda: so_error(conn), "EHOSTUNREACH", within=0.5)
    assert tcp_info(conn).state == "SYN_SENT"


def test_the_error_queue_names_the_router(net, family, short_lived):
    """With IP_RECVERR ("tcp: allow traceroute -Mtcp for unpriv users") epoll reports ERR; the queue has type and code,
    the router as the offender, and the destination of the SYN."""
    conn, target = short_lived
    conn.setblocking(False)
    errqueue.receive_errors(conn)
    conn.connect_ex(target)
    eventually("SO_ERROR of the client's connection", lambda: so_error(conn), "EHOSTUNREACH", within=5)

    assert events(conn) == {"ERR"}
    queued = errqueue.next_error(conn)
    assert (errno_name(queued.errno), (queued.kind, queued.code)) == ("EHOSTUNREACH", TIME_EXCEEDED[family])
    assert (queued.offender, queued.destination) == (net["router"].address(family, "client"), target)


def test_socket_connects_with_ttl_2_after_ehostunreach_with_ttl_1(net, family, short_lived):
    """The same socket to the same address: only the TTL differs."""
    conn, target = short_lived
    assert attempt(conn, target, "blocking").error == "EHOSTUNREACH"
    set_ttl(conn, 2)

    assert attempt(conn, target, "blocking").error == ""


def test_connect_times_out_when_time_exceeded_is_filtered(net, family, short_lived, clock):
    """A firewall drops the time exceeded: ETIMEDOUT after tcp_syn_retries=1, 3 s, as if the host did not exist."""
    client, router = net.nodes("client", "router")
    client.pin({"net.ipv4.tcp_syn_retries": 1})
    try:
        client.pin({"net.ipv4.tcp_syn_linear_timeouts": 0})
    except FileNotFoundError:
        pass                                # added in 6.5
    message = "icmp type time-exceeded" if family == V4 else "icmpv6 type time-exceeded"
    router.nft(f"""
        add table inet kdrift
        add chain inet kdrift out {{ type filter hook output priority 0; }}
        add rule inet kdrift out {message} counter drop
    """)
    clock.align(4)
    conn, target = short_lived
    outcome = attempt(conn, target, "epoll")

    assert outcome.error == "ETIMEDOUT"
    assert outcome.seconds == approx_timer(1, 2)
    assert "packets 2 " in router.nft("list table inet kdrift")


def test_established_connection_survives_time_exceeded(net, family):
    """With TTL 1 SO_ERROR returns EHOSTUNREACH and the connection stays ESTABLISHED; with 64 the retransmission arrives."""
    client, server = net.nodes("client", "server")
    listener = listen(server, family)
    conn = client.socket(family)
    conn.connect(listener.getsockname()[:2])
    peer = server.adopt(listener.accept()[0])
    set_ttl(conn, 1)
    conn.send(b"x")

    eventually("SO_ERROR of the client's connection", lambda: so_error(conn), "EHOSTUNREACH", within=5)
    assert tcp_info(conn).state == "ESTABLISHED"
    set_ttl(conn, 64)
    peer.settimeout(10)
    assert peer.recv(1) == b"x"
