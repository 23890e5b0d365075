"""The three socket options and the three sysctls: bounds, defaults, and precedence (tcp(7))."""

import errno
import socket
import time

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, keepalive, tcp_pair, wait_for_error
from netns.attempt import refused
from netns.hosts import firewall
from netns.named import NamedDict
from netns.traffic.closing import syn_acks

pytestmark = pytest.mark.topology(LAN)

TIME = "net.ipv4.tcp_keepalive_time"
INTERVAL = "net.ipv4.tcp_keepalive_intvl"
PROBES = "net.ipv4.tcp_keepalive_probes"


def option(conn, name):
    return conn.getsockopt(socket.IPPROTO_TCP, name)


def test_new_namespace_has_the_documented_keepalive_defaults(net):
    """7200 s, 75 s, 9 probes (Documentation/networking/ip-sysctl.rst); RFC 1122 requires at least two hours."""
    client, _server = net.nodes("client", "server")

    assert [client.sysctl(name) for name in (TIME, INTERVAL, PROBES)] == ["7200", "75", "9"]


def test_unset_keepalive_option_reads_as_the_sysctl(net, family):
    """Even if the sysctl changes after socket()."""
    client, _server = net.nodes("client", "server")
    conn = client.socket(family)
    client.pin({TIME: 111, INTERVAL: 22, PROBES: 3})

    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    assert [option(conn, name) for name in options] == [111, 22, 3]


@pytest.mark.parametrize("name, most", [("TCP_KEEPIDLE", 32767), ("TCP_KEEPINTVL", 32767), ("TCP_KEEPCNT", 127)])
def test_keepalive_option_out_of_range_is_refused(net, family, name, most):
    """1 to 32767 s, 1 to 127 probes; anything else gives EINVAL and changes nothing (MAX_TCP_KEEP* in net/tcp.h)."""
    client, _server = net.nodes("client", "server")
    conn = client.socket(family)
    number = getattr(socket, name)
    for allowed in (1, most):
        conn.setsockopt(socket.IPPROTO_TCP, number, allowed)
        assert option(conn, number) == allowed

    for beyond in (-1, 0, most + 1):
        with refused("EINVAL", f"setting option {number} to {beyond}"):
            conn.setsockopt(socket.IPPROTO_TCP, number, beyond)
    assert option(conn, number) == most


def test_keepalive_socket_options_override_the_sysctls(net, family):
    """Sysctls of 1 s, 1 s and 1 probe end a connection after 2 s; one with options lives for 2 + 1 + 1 s."""
    client, server = net.nodes("client", "server")
    client.pin({TIME: 1, INTERVAL: 1, PROBES: 1})
    follower, _peer = tcp_pair(client, server, family)
    owner, _peer = tcp_pair(client, server, family)
    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        armed = time.time()
        keepalive(follower)
        keepalive(owner, idle=2, interval=1, count=2)
        for conn in (follower, owner):
            assert wait_for_error(conn, within=20) == errno.ETIMEDOUT

    resets = NamedDict("times of the RSTs sent by client, by port",
                     {packet.sport: packet.time - armed for packet in packets.sent() if packet.flags == "RA"})
    assert resets[follower.getsockname()[1]] == approx_timer(1, 1)
    assert resets[owner.getsockname()[1]] == approx_timer(2, 1, 1)


def test_raised_tcp_keepalive_time_postpones_a_pending_probe(net, family):
    """When the timer fires, keepalive_time_when() reads the namespace's sysctl again unless the socket has a value
    (net/ipv4/tcp_timer.c): raised while the timer runs, it delays the first probe by the rest."""
    client, server = net.nodes("client", "server")
    client.pin({TIME: 1})
    with client.capture("tcp") as packets:
        owner, _peer = tcp_pair(client, server, family)
        follower, _peer = tcp_pair(client, server, family)      # right before it is armed: the rest counts from the last segment received
        armed = time.time()
        keepalive(follower)
        keepalive(owner, idle=1)
        client.pin({TIME: 2})
        packets.until("keepalive probes of both connections", lambda seen: len({probe.sport for probe in seen.probes()}) == 2, within=10)

    first = NamedDict("times of client's first keepalive probes, by port",
                    {probe.sport: probe.time - armed for probe in reversed(packets.probes())})
    assert first[owner.getsockname()[1]] == approx_timer(1)
    assert first[follower.getsockname()[1]] == approx_timer(1, 1)


def test_lowered_tcp_keepalive_time_does_not_shorten_a_running_timer(net, family):
    """Writing the sysctl touches no socket: a timer armed for 2 s fires after 2 s, not after the new 1 s."""
    client, server = net.nodes("client", "server")
    client.pin({TIME: 2})
    conn, _peer = tcp_pair(client, server, family)
    with client.capture("tcp") as packets:
        armed = time.time()
        keepalive(conn)
        client.pin({TIME: 1})
        packets.until("a keepalive probe", lambda seen: seen.probes(), within=10)

    assert packets.probes()[0].time - armed == approx_timer(2)


def test_tcp_keepidle_set_later_counts_from_the_last_received_segment(net, family, clock):
    """Setting TCP_KEEPIDLE rearms the timer for the rest of the new time since the peer's last segment."""
    client, server = net.nodes("client", "server")
    with client.capture("tcp") as packets:
        conn, _peer = tcp_pair(client, server, family)
        keepalive(conn, idle=100)
        clock.sleep(0.5)
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        packets.until("a keepalive probe", lambda seen: seen.probes(), within=10)

    syn_ack = syn_acks(packets.received()).only()
    assert packets.probes()[0].time - syn_ack.time == approx_timer(0.5, 0.5)


def test_interval_and_count_sysctls_apply_to_a_socket_that_is_probing(net, family):
    """After the first probe the interval becomes 2 s and the count 2: the running timer sends the second probe 1 s
    later, the end comes another 2 s later."""
    client, server = net.nodes("client", "server")
    client.pin({TIME: 1, INTERVAL: 1, PROBES: 9})
    conn, _peer = tcp_pair(client, server, family)
    with firewall.drop(server, client.address(family)), client.capture("tcp") as packets:
        keepalive(conn)
        packets.until("a keepalive probe", lambda seen: seen.probes(), within=10)
        client.pin({INTERVAL: 2, PROBES: 2})
        assert wait_for_error(conn, within=20) == errno.ETIMEDOUT

    first, second, reset = packets.sent().exactly(3)
    assert second.time - first.time == approx_timer(1)
    assert (reset.flags, reset.time - second.time) == ("RA", approx_timer(2))
