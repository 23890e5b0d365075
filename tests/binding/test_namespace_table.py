"""The same address and port in many network namespaces: each socket has them to itself, and receives what is for it. Source:
network_namespaces(7): port numbers are of the namespace."""

import socket
import struct
from contextlib import ExitStack

import pytest

from fixtures.binding import EXPERIMENTAL, V4, V6, Ask, bound, made
from fixtures.table import Table
from netns import Host
from netns.attempt import errno_of
from netns.netlink import rtnl

# So many that two namespaces share a bucket of every table that has one entry for all of them: that of ping has 64 (ping_hashfn()).
HOSTS = 40
FIRST_PORT = 4321                           # each cell has a port of its own: of TCP something may be left
FAMILIES = {"IPv4": V4, "IPv6": V6}
LOCALHOST, ANY = {V4: "127.0.0.1", V6: "::1"}, {V4: "0.0.0.0", V6: "::"}
ECHO_REQUEST = {V4: 8, V6: 128}
PROTOCOLS = ("TCP", "UDP", "raw", "ping")
OPTIONS = {"no option": (), "REUSEADDR": ("REUSEADDR",), "REUSEPORT": ("REUSEPORT",)}
ADDRESSES = {"any address": ANY, "its address": LOCALHOST}
CELLS = {f"{name}, {address}, {option}": (family, ADDRESSES[address], OPTIONS[option])
         for name, family in FAMILIES.items() for address in ADDRESSES for option in OPTIONS}
ALL = "all bound, each has its own"
TABLE = Table("binding.namespaces", "protocol", "address and options of the sockets, one in each namespace", "network_namespaces(7)", {
    protocol: dict.fromkeys(CELLS, ALL) for protocol in PROTOCOLS})


def ask_itself(host, protocol, sock, family, port, number):
    """Send the host's own socket this number by loopback. Returns a socket that must stay open until it has been received."""
    to = (LOCALHOST[family], port)
    if protocol == "TCP":
        conn = made(host, "TCP", Ask(ANY[family]))
        conn.settimeout(5)
        conn.connect(to)
        conn.send(struct.pack("!H", number))
        return conn
    if protocol == "ping":
        sock.sendto(struct.pack("!BBHHH", ECHO_REQUEST[family], 0, 0, 0, number), (LOCALHOST[family], 0))
        return sock
    other = host.socket(family, socket.SOCK_RAW if protocol == "raw" else socket.SOCK_DGRAM, EXPERIMENTAL if protocol == "raw" else 0)
    other.sendto(struct.pack("!H", number), to if protocol == "UDP" else (LOCALHOST[family], 0))
    return other


def received(host, protocol, sock):
    """The number that the socket has, None if it has none."""
    sock.settimeout(2)
    if protocol == "TCP":
        conn = errno_of(sock.accept)
        if isinstance(conn, str) or conn is None:
            return None
        with host.adopt(conn[0]) as peer:
            peer.settimeout(2)
            data = peer.recv(2)
    else:
        data = errno_of(sock.recv, 100)
    return struct.unpack("!H", data[-2:])[0] if isinstance(data, bytes) and len(data) > 1 else None


def outcome(hosts, protocol, port, family, addresses, options):
    with ExitStack() as stack:
        sockets = [stack.enter_context(made(host, protocol, Ask(addresses[family], options))) for host in hosts]
        errors = sorted({error for sock in sockets if (error := bound(sock, addresses[family], 0 if protocol == "raw" else port))})
        if errors:
            return f"{' and '.join(errors)} for some"
        if protocol == "TCP":
            for sock in sockets:
                sock.listen()
        for number, (host, sock) in enumerate(zip(hosts, sockets)):
            stack.enter_context(ask_itself(host, protocol, sock, family, port, number))
        wrong = [number for number, (host, sock) in enumerate(zip(hosts, sockets)) if received(host, protocol, sock) != number]
    return f"all bound, {len(wrong)} have none or another's" if wrong else ALL


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_address_and_port_belong_to_each_namespace(row, table):
    """Whatever other namespaces have bound."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(Host(f"host{number}")) for number in range(HOSTS)]
        for host in hosts:
            rtnl.request(host.namespace, [rtnl.loopback_up()])
            host.pin({"net.ipv4.ping_group_range": "0 0"})
        for port, column in enumerate(table, FIRST_PORT):
            table.saw(outcome(hosts, row, port, *CELLS[column]))
