"""The tables of /proc/net, as programs read that keep them open. Source: proc_pid_net(5); lseek(2), pread(2)."""

import os

import pytest

from fixtures.topologies import LAN
from netns import deliver, tcp_pair
from netns.attempt import errno_of

pytestmark = pytest.mark.topology(LAN)

PIECE = 128
TABLES = ("arp", "dev", "fib_trie", "if_inet6", "igmp", "igmp6", "ipv6_route", "netlink", "netstat", "packet", "protocols", "raw", "raw6",
          "route", "rt6_stats", "snmp", "snmp6", "sockstat", "tcp", "tcp6", "udp", "udp6", "unix")


def whole(file, size):
    return b"".join(iter(lambda: os.read(file, size), b""))


def test_each_table_can_be_read_again_from_its_beginning(net, family):
    """By lseek(2) to 0 on the same descriptor, in one piece and in pieces of 128 bytes, and by pread(2): monitors poll that way. Some
    stable releases refused it with ESPIPE (tailscale #16966)."""
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    deliver(conn, peer, 10)
    wrong = {}
    with client.entered():
        for name in TABLES:
            path = f"/proc/thread-self/net/{name}"
            if not os.path.exists(path):
                continue
            file = os.open(path, os.O_RDONLY)
            try:
                first = whole(file, 1 << 16)
                found = [errno_of(os.lseek, file, 0, os.SEEK_SET), whole(file, PIECE) == first, errno_of(os.lseek, file, 0, os.SEEK_SET),
                         whole(file, 1 << 16) == first, errno_of(os.pread, file, 20, 0) == first[:20]]
                if found != [0, True, 0, True, True] or not first:
                    wrong[name] = found
            finally:
                os.close(file)

    assert wrong == {}


def test_table_shows_a_socket_that_came_after_it_was_opened(net, family):
    """A descriptor is not a copy: rewound, it shows the table of now."""
    client, server = net.nodes("client", "server")
    with client.entered():
        file = os.open(f"/proc/thread-self/net/{'tcp' if family == 2 else 'tcp6'}", os.O_RDONLY)
    try:
        before = whole(file, 1 << 16).count(b"\n")
        pair = tcp_pair(client, server, family)
        os.lseek(file, 0, os.SEEK_SET)
        with_connection = whole(file, 1 << 16).count(b"\n")
    finally:
        os.close(file)

    assert (before, with_connection, len(pair)) == (1, 2, 2)
