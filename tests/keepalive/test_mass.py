"""Keepalive as a server uses it: thousands of connections at once."""

import errno
import os
import resource
import select
import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from fixtures.topologies import LAN
from netns import MissingFeature, approx_timer, at_most, eventually, keepalive, listen, timer_slack
from netns.hosts import firewall
from netns.hosts.sysctl import global_sysctl

pytestmark = pytest.mark.topology(LAN)


# KiB; a socket took up to 3.2 on 6.12 and 7.2; 6.18 killed the test with 4.2 available for each.
MEMORY_OF_A_SOCKET = 4.5


def require_room_for(sockets):
    """Skip unless this process may open `sockets` sockets, and the machine has memory for them."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(meminfo["MemAvailable"].split()[0])
    if available < sockets * MEMORY_OF_A_SOCKET:
        needed = sockets * MEMORY_OF_A_SOCKET / 1024
        pytest.skip(f"needs {needed:.0f} MiB of memory for {sockets} sockets, {available // 1024} MiB are available")
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < sockets + 256:
        pytest.skip(f"needs {sockets} sockets, RLIMIT_NOFILE is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def backlog_for(packets):
    """Thousands of timers at once overflow a CPU's backlog: raise it to `packets`, where it can be set."""
    with ExitStack() as stack:
        with suppress(MissingFeature):
            stack.enter_context(global_sysctl("net.core.netdev_max_backlog", packets))
        yield


def connect_many(client, server, family, count):
    """`count` connections: the client's sockets and the server's."""
    listener = listen(server, family, backlog=count)
    pairs = []
    for _ in range(count):
        conn = client.socket(family)
        conn.connect(listener.getsockname()[:2])
        pairs.append((conn, server.adopt(listener.accept()[0])))
    listener.close()
    return zip(*pairs)


def sockets_in_use(host, family):
    return host.counter("sockstat.TCP.inuse" if family == socket.AF_INET else "sockstat6.TCP6.inuse")


def pages_kept_by_cpus():
    """Each CPU may keep up to 1 MiB of freed pages (sysctl net.core.mem_pcpu_rsv)."""
    return at_most(256 * os.cpu_count())


def wait_for_errors(conns):
    """{descriptor: (when, errno)} of each connection as it dies; ends when all have, or after 60 s without one."""
    poll = select.epoll()
    by_descriptor = {conn.fileno(): conn for conn in conns}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    errors = {}
    while len(errors) < len(by_descriptor) and (events := poll.poll(60, 1024)):
        now = time.monotonic()
        for descriptor, _event in events:
            errors[descriptor] = (now, by_descriptor[descriptor].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            poll.unregister(descriptor)
    return errors


@pytest.mark.parametrize("count", [2000, pytest.param(20000, marks=pytest.mark.mass)])
def test_keepalive_ends_every_dead_connection_and_none_early(net, family, clock, measure, count):
    """Each gives up 1 + 1 s after its own start; then no socket and no memory is in use."""
    require_room_for(2 * count)
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.ip_local_port_range": "1024 65535"})
    before = client.counters()
    conns, peers = connect_many(client, server, family, count)
    with backlog_for(2 * count), firewall.drop(server, client.address(family)) as dropped:
        clock.align(1)
        armed = {}
        for conn in conns:
            armed[conn.fileno()] = time.monotonic()
            keepalive(conn, idle=1, interval=1, count=1)
        errors = wait_for_errors(conns)
        # A probe that finds the backlog full is sent again, a RST is not.
        eventually("packets dropped by server's firewall plus TcpExt.TCPAbortFailed of client",
                   lambda: dropped.packets() + client.counter("TcpExt.TCPAbortFailed"), 2 * count, within=5)

    assert {number for _when, number in errors.values()} == {errno.ETIMEDOUT}
    took = sorted(when - armed[descriptor] for descriptor, (when, _number) in errors.items())
    assert len(took) == count
    # The last one may wait until the kernel and this test have handled all others, 0.1 ms each.
    tolerance = timer_slack(1, 1) + 0.0001 * count
    assert took[0] == approx_timer(1, 1, late=2)
    assert measure("keepalive.mass_reaped_last", took[-1], "s", tolerance) == approx_timer(1, 1, late=2)

    for conn in (*conns, *peers):
        conn.close()
    eventually("sockets in use at client", lambda: sockets_in_use(client, family), 0, within=10)
    if clock.kind == "virtual":
        # These two count the whole machine, and only a guest is ours alone.
        client.await_counter("sockstat.TCP.alloc", at_most(0), within=10, since=before["sockstat.TCP.alloc"])
        client.await_counter("sockstat.TCP.mem", pages_kept_by_cpus(), within=10, since=before["sockstat.TCP.mem"])
