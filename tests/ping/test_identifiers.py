"""Unprivileged ICMP echo as in ping(8): sockets of IPPROTO_ICMP, whose port is the echo identifier."""

import socket
import struct
from contextlib import ExitStack

import pytest

from netns import Host
from netns.netlink import rtnl

IDENTIFIER = 4321
LOCALHOST = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
# One table of 64 buckets holds the identifiers of all namespaces: of so many, some share one (ping_hashfn()).
HOSTS = 40


@pytest.mark.parametrize("reuse", [0, 1], ids=["one socket each", "SO_REUSEADDR"])
def test_echo_identifier_is_private_to_its_namespace(family, reuse):
    """Every host can bind it, and gets its own replies. Kernels without "inet: ping: check sock_net() in
    ping_get_port() and ping_lookup()" refuse the bind, or deliver a reply to another host's socket."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(Host(f"host{number}")) for number in range(HOSTS)]
        sockets = []
        for host in hosts:
            rtnl.request(host.namespace, [rtnl.loopback_up()])
            host.pin({"net.ipv4.ping_group_range": "0 0"})
            sockets.append(host.socket(family, socket.SOCK_DGRAM, PROTOCOL[family]))
            sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
            sockets[-1].bind((LOCALHOST[family], IDENTIFIER))

        for number, sock in enumerate(sockets):
            sock.sendto(struct.pack("!BBHHH", ECHO_REQUEST[family], 0, 0, 0, number), (LOCALHOST[family], 0))

        for number, sock in enumerate(sockets):
            sock.settimeout(5)
            *_header, identifier, sequence = struct.unpack("!BBHHH", sock.recv(100))
            assert (identifier, sequence) == (IDENTIFIER, number)
