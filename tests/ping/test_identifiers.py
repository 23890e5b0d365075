"""ICMP echo without root, as `ping` does it: sockets of IPPROTO_ICMP, whose port is the echo identifier."""

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
# A table of 64 rows holds the identifiers of all namespaces: of so many, some share a row (ping_hashfn()).
HOSTS = 40


@pytest.mark.parametrize("reuse", [0, 1], ids=["one socket each", "SO_REUSEADDR"])
def test_an_echo_identifier_belongs_to_its_host(family, reuse):
    """Every host may use it, and gets its own replies. Kernels without "inet: ping: check sock_net() in
    ping_get_port() and ping_lookup()" refuse it, or give a reply to a socket of another host."""
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
