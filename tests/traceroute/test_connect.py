"""connect() as a probe: what a small IP_TTL or IPV6_UNICAST_HOPS does to it, as in `traceroute -T` without
privileges."""

import pytest

from fixtures.icmp_errors import TIME_EXCEEDED, V4
from fixtures.topologies import ROUTED
from netns import approx_timer, eventually, listen, tcp_info, timer_slack
from netns.attempt import WAYS, attempt, events, name, so_error
from netns.hosts.qdisc import qdisc
from netns.packets import errqueue
from netns.packets.probe import set_ttl

pytestmark = pytest.mark.topology(ROUTED)


@pytest.fixture
def short_lived(net, family):
    """A TCP socket of the client whose packets get no farther than the router, and a listener's address behind it."""
    client, server = net.nodes("client", "server")
    conn = client.socket(family)
    set_ttl(conn, 1)
    return conn, listen(server, family).getsockname()[:2]


@pytest.mark.parametrize("way", WAYS)
def test_an_expired_syn_ends_connect(net, family, short_lived, way, measure):
    """Time exceeded that takes 20 ms to arrive: EHOSTUNREACH with it, after one SYN (RFC 5461, 2.2; tcp_v4_err())."""
    conn, target = short_lived
    with qdisc(net["client"], "to-router", "netem", "delay", "10ms"), net["client"].capture("tcp") as packets:
        outcome = attempt(conn, target, way)

    assert outcome.error == "EHOSTUNREACH"
    assert measure(f"traceroute.connect_expired.{way}", outcome.seconds, "s", timer_slack(0)) < 0.5
    assert len(packets.sent()) == 1


def test_an_answer_that_comes_while_connect_sends_waits_for_the_next_syn(net, family, short_lived, clock, measure):
    """Over a bare link the answer is there before connect() has let go of its socket: the kernel notes it
    (LockDroppedIcmps, sk_err_soft), and the SYN after 1 s brings the one that counts: EHOSTUNREACH after 1 s."""
    client = net["client"]
    clock.align(2)
    conn, target = short_lived
    outcome = attempt(conn, target, "blocking")

    assert outcome.error == "EHOSTUNREACH"
    assert measure("traceroute.connect_expired_at_once", outcome.seconds, "s", timer_slack(1)) == approx_timer(1)
    assert client.counter("TcpExt.LockDroppedIcmps") == 1


def test_a_nonblocking_client_can_read_that_answer_at_once(net, family, short_lived):
    """SO_ERROR tells the noted error, EHOSTUNREACH, while the socket still is in SYN_SENT and tries on."""
    conn, target = short_lived
    conn.setblocking(False)
    conn.connect_ex(target)

    eventually("SO_ERROR of the client's connection", lambda: so_error(conn), "EHOSTUNREACH", within=0.5)
    assert tcp_info(conn).state == "SYN_SENT"


def test_the_error_queue_names_the_router(net, family, short_lived):
    """With IP_RECVERR ("tcp: allow traceroute -Mtcp for unpriv users"): epoll says ERR, and the queue who it was (the
    offender), with type and code, and where the SYN should have gone."""
    conn, target = short_lived
    conn.setblocking(False)
    errqueue.receive_errors(conn)
    conn.connect_ex(target)
    eventually("SO_ERROR of the client's connection", lambda: so_error(conn), "EHOSTUNREACH", within=5)

    assert events(conn) == {"ERR"}
    queued = errqueue.next_error(conn)
    assert (name(queued.errno), (queued.kind, queued.code)) == ("EHOSTUNREACH", TIME_EXCEEDED[family])
    assert (queued.offender, queued.destination) == (net["router"].address(family, "client"), target)


def test_the_same_socket_connects_with_one_hop_more(net, family, short_lived):
    """After EHOSTUNREACH, with TTL 2: the number of hops is the only difference."""
    conn, target = short_lived
    assert attempt(conn, target, "blocking").error == "EHOSTUNREACH"
    set_ttl(conn, 2)

    assert attempt(conn, target, "blocking").error == ""


def test_a_router_that_does_not_tell_leaves_a_timeout(net, family, short_lived, clock):
    """Its time exceeded is dropped by a firewall: ETIMEDOUT after tcp_syn_retries=1, 3 s, as if nobody were there."""
    client, router = net.nodes("client", "router")
    client.pin({"net.ipv4.tcp_syn_retries": 1})
    try:
        client.pin({"net.ipv4.tcp_syn_linear_timeouts": 0})
    except FileNotFoundError:
        pass                                # kernels before 6.5 have none
    message = "icmp type time-exceeded" if family == V4 else "icmpv6 type time-exceeded"
    router.run(["nft", "-f", "-"], stdin=f"""
        add table inet kdrift
        add chain inet kdrift out {{ type filter hook output priority 0; }}
        add rule inet kdrift out {message} counter drop
    """)
    clock.align(4)
    conn, target = short_lived
    outcome = attempt(conn, target, "epoll")

    assert outcome.error == "ETIMEDOUT"
    assert outcome.seconds == approx_timer(1, 2)
    assert "packets 2 " in router.run(["nft", "list", "table", "inet", "kdrift"])


def test_an_established_connection_outlives_a_path_that_is_too_long(net, family):
    """A TTL that became too small: data is not delivered, SO_ERROR tells EHOSTUNREACH, and with a larger TTL the
    retransmission delivers it."""
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
