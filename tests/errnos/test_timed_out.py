"""No answer: when SYNs are sent, when connect() gives up, and with which errno (RFC 6298, tcp(7), ip-sysctl.rst)."""

import socket
import struct

import pytest

from fixtures.icmp_errors import HOST_UNREACHABLE
from fixtures.topologies import ROUTED
from netns import MissingFeature, approx_timer, stopwatch, tcp_info, tcp_pair, timer_slack, wait_for_error
from netns.attempt import WAYS, attempt, errno_name, events
from netns.packets import icmp

pytestmark = pytest.mark.topology(ROUTED)

TCP_SYNCNT, TCP_USER_TIMEOUT = 7, 18
INITIAL_TIMEOUT = 1


def waits(retries, linear):
    """Seconds from each SYN to the next, and from the last one to ETIMEDOUT: 1 s for the first `linear` + 1, then
    doubling. The `linear` SYNs come on top of the retries ("tcp: Add TCP_SYN_LINEAR_TIMEOUTS",
    tcp_write_timeout())."""
    return [INITIAL_TIMEOUT] * linear + [INITIAL_TIMEOUT * 2**n for n in range(retries + 1)]


def spacing(packets):
    """Seconds between SYNs."""
    times = [packet.time for packet in packets.sent()]
    assert {packet.flags for packet in packets.sent()} == {"S"}
    return [later - earlier for earlier, later in zip(times, times[1:])]


@pytest.mark.parametrize("way", WAYS)
def test_connect_gives_up_after_tcp_syn_retries(net, family, silence, syn_retries, clock, measure, way):
    """tcp_syn_retries=1: SYNs at 0 and 1 s, ETIMEDOUT at 3 s."""
    syn_retries(1, linear=0)
    clock.align(4)
    with net["client"].capture("tcp") as packets:
        outcome = attempt(net["client"].socket(family), silence, way)

    assert outcome.error == "ETIMEDOUT"
    assert spacing(packets) == [approx_timer(1)]
    assert measure(f"errno.timed_out_short.{way}", outcome.seconds, "s", timer_slack(1, 2)) == approx_timer(1, 2)


def test_linear_syn_timeouts_precede_exponential_backoff(net, family, silence, syn_retries, clock):
    """tcp_syn_linear_timeouts=1 (since 6.5) adds a SYN with a timeout of 1 s: SYNs at 0, 1 and 2 s, ETIMEDOUT at 4 s."""
    if not syn_retries(1, linear=1):
        raise MissingFeature("the kernel has no tcp_syn_linear_timeouts")
    clock.align(4)
    with net["client"].capture("tcp") as packets:
        outcome = attempt(net["client"].socket(family), silence, "nonblocking")

    assert outcome.error == "ETIMEDOUT"
    assert spacing(packets) == [approx_timer(1), approx_timer(1)]
    assert outcome.seconds == approx_timer(1, 1, 2)


@pytest.mark.virtual_clock("waits more than 2 minutes, with the default tcp_syn_retries")
@pytest.mark.parametrize("way", WAYS)
def test_syns_follow_the_default_schedule_until_etimedout(net, family, silence, syn_retries, clock, measure, way):
    """tcp_syn_retries=6: SYNs at 0, 1, 3, 7, 15, 31, 63 s and ETIMEDOUT at 127 s; with 4 linear timeouts (since 6.5) at 0, 1,
    2, 3, 4, 5, 7, 11, 19, 35, 67 s and 131 s."""
    expected = waits(6, syn_retries(6, linear=4))
    clock.align(64)
    with net["client"].capture("tcp") as packets:
        outcome = attempt(net["client"].socket(family), silence, way, within=300)

    assert outcome.error == "ETIMEDOUT"
    assert spacing(packets) == [approx_timer(each) for each in expected[:-1]]
    measure(f"errno.timed_out.{way}.syns", len(packets.sent()), "SYNs")
    # Not timer_slack(): the timer wheel's rounding may exceed the 1 s that one more SYN adds.
    assert measure(f"errno.timed_out.{way}", outcome.seconds, "s", tolerance=INITIAL_TIMEOUT / 2) == approx_timer(*expected)
    assert net["client"].counter("TcpExt.TCPTimeouts") == len(expected)


def test_tcp_syncnt_overrides_tcp_syn_retries(net, family, silence, syn_retries, clock):
    """TCP_SYNCNT=1 (tcp(7)): ETIMEDOUT at 3 s, where the sysctl would allow 127 s."""
    syn_retries(6, linear=0)
    conn = net["client"].socket(family)
    conn.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 1)
    clock.align(4)
    outcome = attempt(conn, silence, "nonblocking")

    assert outcome.error == "ETIMEDOUT"
    assert outcome.seconds == approx_timer(1, 2)


def test_user_timeout_ends_a_connection_attempt_early(net, family, silence, syn_retries, clock):
    """TCP_USER_TIMEOUT=1500 ms (RFC 5482, tcp(7)) shortens the timer after the SYN at 1 s
    (tcp_clamp_rto_to_user_timeout()): ETIMEDOUT at 1.5 s."""
    syn_retries(6, linear=0)
    conn = net["client"].socket(family)
    conn.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 1500)
    clock.align(4)
    outcome = attempt(conn, silence, "nonblocking")

    assert outcome.error == "ETIMEDOUT"
    assert outcome.seconds == approx_timer(1, 0.5)


def test_so_sndtimeo_ends_connect_but_not_the_connection_attempt(net, family, silence, syn_retries, clock):
    """SO_SNDTIMEO=0.5 s (socket(7)): then connect() fails with EINPROGRESS, and the socket stays in SYN_SENT."""
    syn_retries(6, linear=0)
    conn = net["client"].socket(family)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 0, 500_000))
    clock.align(1)
    outcome = attempt(conn, silence, "blocking")

    assert outcome.error == "EINPROGRESS"
    assert outcome.seconds == approx_timer(0.5)
    assert (tcp_info(conn).state, events(conn)) == ("SYN_SENT", set())


@pytest.mark.virtual_clock("waits 15 minutes, with the default tcp_retries2")
@pytest.mark.parametrize("unreachable", [False, True], ids=("silence", "unreachable"))
def test_established_connection_gives_up_after_15_retransmissions(net, family, clock, measure, unreachable):
    """tcp_retries2=15 (ip-sysctl.rst): 924.6 s, with an RTO that doubles from 200 ms to 120 s. ETIMEDOUT, or
    EHOSTUNREACH after an ICMP error, which must not end the connection by itself (RFC 1122, 4.2.3.9)."""
    client, server, router = net.nodes("client", "server", "router")
    client.pin({"net.ipv4.tcp_retries1": 3, "net.ipv4.tcp_retries2": 15, "net.ipv4.tcp_early_retrans": 0})
    conn, _peer = tcp_pair(client, server, family)
    router.run(["ip", "route", "add", "blackhole", server.address(family)])
    clock.align(128)
    with client.capture("tcp") as packets, stopwatch() as took:
        conn.send(b"x")
        if unreachable:
            packets.until("the client's segment", lambda seen: seen.sent(), within=5)
            icmp.send_error(router, client, *HOST_UNREACHABLE[family], icmp.quote(packets.sent()[0]))
        error = wait_for_error(conn, within=2000)

    assert errno_name(error) == ("EHOSTUNREACH" if unreachable else "ETIMEDOUT")
    assert len(packets.sent()) == 1 + 15
    timeouts = [min(0.2 * 2**n, 120) for n in range(16)]
    measured = measure(f"errno.established_{errno_name(error)}_after", took.seconds, "s", timer_slack(*timeouts))
    assert measured == approx_timer(*timeouts)
