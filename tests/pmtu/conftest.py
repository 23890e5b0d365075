"""Fixtures of the path MTU tests: pinned sysctls, and a service behind an IPVS director."""

import select
import socket
from dataclasses import dataclass

import pytest

from netns import Host, Network
from netns.hosts import ipvs
from netns.hosts.pinned import NO_ICMP_LIMITS

# Bytes of the TCP timestamps option, padded (RFC 7323).
TIMESTAMPS = 12

# What the results depend on besides what build() pins, with the documented defaults, but without ICMP rate limits.
PINNED = {
    "net.ipv4.ip_no_pmtu_disc": 0,
    "net.ipv4.ip_forward_use_pmtu": 0,
    **NO_ICMP_LIMITS,
    "net.ipv4.tcp_mtu_probing": 0,
    "net.ipv4.tcp_base_mss": 1024,
    "net.ipv4.tcp_min_snd_mss": 48,
    "net.ipv4.tcp_timestamps": 1,
    "net.ipv4.tcp_sack": 1,
    "net.ipv4.tcp_ecn": 0,
    "net.ipv4.tcp_no_metrics_save": 1,
    "net.ipv4.tcp_early_retrans": 3,
    "net.ipv4.tcp_autocorking": 0,
    "net.ipv4.tcp_wmem": "4096 65536 4194304",
    "net.ipv4.tcp_congestion_control": "reno",
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.default.send_redirects": 0,
    "net.ipv4.conf.all.accept_redirects": 0,
    "net.ipv4.conf.default.accept_redirects": 0,
    "net.ipv6.conf.all.accept_redirects": 0,
}


@pytest.fixture(autouse=True)
def pinned(net: Network) -> None:
    for host in net.hosts.values():
        host.pin(PINNED)
        host.pin({f"net.ipv4.conf.{interface.name}.send_redirects": 0 for interface in host.interfaces.values()})


@dataclass(frozen=True)
class VirtualService:
    """A virtual address and port of several real servers. `overhead` is what the tunnel adds to a packet, in bytes."""

    family: socket.AddressFamily
    address: str
    port: int
    listeners: tuple[socket.socket, ...]
    servers: tuple[Host, ...]
    overhead: int

    def connect(self, client: Host) -> tuple[socket.socket, socket.socket]:
        """A new connection: the client's socket and that of its real server."""
        conn = client.socket(self.family)
        conn.settimeout(10)
        conn.connect((self.address, self.port))
        return conn, self.accept()

    def largest(self, mtu: int) -> int:
        """Bytes of payload in a TCP segment with timestamps, in a packet of this MTU."""
        return mtu - (20 if self.family == socket.AF_INET else 40) - 20 - TIMESTAMPS

    @property
    def tunnel_mtu(self) -> int:
        """Bytes of the largest packet that fits into the tunnel over links of 1500."""
        return 1500 - self.overhead

    def accept(self) -> socket.socket:
        [listener], _, _ = select.select(self.listeners, [], [], 10)
        host = self.servers[self.listeners.index(listener)]
        return host.adopt(listener.accept()[0])


@pytest.fixture
def service(net: Network, family: socket.AddressFamily) -> VirtualService:
    """Port 80 of a virtual address: the director tunnels connections to two real servers in turn. They have the address
    on their tunnel device and answer the client directly."""
    address, overhead = ("203.0.113.1", 20) if family == socket.AF_INET else ("2001:db8:ff::1", 40)
    director, *servers = net.nodes("director", "server1", "server2")
    listeners = []
    for server in servers:
        ipvs.real_server(server, address)
        listener = server.socket(family)
        listener.bind((address, 80))
        listener.listen()
        listeners.append(listener)
    ipvs.tunnel_service(director, address, 80, [server.address(family) for server in servers])
    director.pin({"net.ipv4.vs.pmtu_disc": 1, "net.ipv4.vs.conntrack": 0})
    return VirtualService(family, address, 80, tuple(listeners), tuple(servers), overhead)
