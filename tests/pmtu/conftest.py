"""Fixtures of the path MTU tests: pinned sysctls, a service behind an IPVS director, and destinations that hold a path MTU."""

import fcntl
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import pytest

from netns import CommandError, Host, Network, missing_feature, stopwatch
from netns.attempt import errno_of
from netns.hosts import ipvs
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.netlink.lookup import lookup
from netns.packets import errqueue, icmp

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


V4, V6 = socket.AF_INET, socket.AF_INET6
OWN = 1450                                  # bytes, of a route with an MTU
EXPIRES = 600                               # seconds, mtu_expires (ip-sysctl.rst)
LEVEL = {V4: socket.IPPROTO_IP, V6: socket.IPPROTO_IPV6}
MTU_DISCOVER, DO = {V4: 10, V6: 23}, 2
SIOCGIFMTU = 0x8921
VRF_TABLE = 10
SEVERAL = ("multipath route", "nexthop group")


class Cells:
    """As many destinations of a client, each behind a route of its own of one kind, with a socket that learns for it; `own` gives each a
    device too."""

    def __init__(self, net, family, holder, count, own=False):
        self.client, self.router = net.nodes("client", "router")
        self.family, self.holder, self.own = family, holder, own
        self.source = self.client.address(family)
        # No packet goes to them.
        self.gateways = [f"192.0.2.{each}" if family == V4 else f"fe80::{each}" for each in (97, 98, 99)]
        self.vrf = 0
        if holder == "route of a VRF":
            self._make_vrf()
        numbers = range(1, count + 1)
        if own:
            self.ip(*(line for n in numbers for line in (
                f"link add own{n} type veth peer name peer{n}", f"link set own{n} up", f"link set peer{n} up")))
        try:
            self.ip(*sorted((line for n in numbers for line in self._nexthops(n)), key=lambda line: " group " in line))
        except CommandError as error:
            raise missing_feature("the kernel has no nexthop objects", error) from error
        self.ip(*(line for n in numbers for line in self._routes(n)))
        self.number = 0

    def ip(self, *lines):
        """Commands of ip(8) for this family, except that a nexthop group has none."""
        for family, some in groupby(lines, lambda line: [] if " group " in line else ["-4" if self.family == V4 else "-6"]):
            self.client.run(["ip", *family, "-batch", "-"], stdin="\n".join(some) + "\n")

    def _make_vrf(self):
        words = "/24 dev to-router" if self.family == V4 else "/64 dev to-router nodad"
        gateway = self.router.address(self.family, "client")
        self.ip(f"link add vrf-red type vrf table {VRF_TABLE}", "link set vrf-red up", "link set to-router master vrf-red",
                f"address replace {self.source}{words}", f"route replace table {VRF_TABLE} default via {gateway} dev to-router")
        with self.client.entered():
            self.vrf = socket.if_nametoindex("vrf-red")
        self.client.await_address(self.source)

    def device(self, n):
        return f"own{n}" if self.own else "to-router"

    def prefix(self, n):
        return f"10.9.{n}.0/24" if self.family == V4 else f"2001:db8:9:{n:x}::/64"

    def hop(self, n, gateway=""):
        return f"via {gateway or self.gateways[0]} dev {self.device(n)} onlink"

    def _nexthops(self, n):
        both = [f"nexthop add id {n} {self.hop(n)}", f"nexthop add id {100 + n} {self.hop(n, self.gateways[1])}"]
        group = f"nexthop add id {200 + n} group {n}/{100 + n}"
        return {"nexthop object": both[:1], "nexthop group": [*both, group]}.get(self.holder, [])

    def _routes(self, n):
        if self.holder == "default route":
            return []
        rule = [f"rule add fwmark {n} lookup {n}"] if self.holder == "route of a rule" else []
        return [*rule, f"route add {self.route(n)}"]

    def route(self, n, gateway="", words=""):
        """This cell's route in the words of ip-route(8); `words` are further ones, instead of its own."""
        own = {"route with an MTU": f" mtu {OWN}", "route with a locked MTU": f" mtu lock {OWN}"}.get(self.holder, "")
        words = (words or own) + {"route of a rule": f" table {n}", "route of a VRF": f" table {VRF_TABLE}"}.get(self.holder, "")
        hop = self.hop(n, gateway)
        hops = {"multipath route": f"nexthop {hop} nexthop {self.hop(n, self.gateways[1])}", "nexthop object": f"nhid {n}",
                "nexthop group": f"nhid {200 + n}", "route to a link": f"dev {self.device(n)}"}.get(self.holder, hop)
        return f"{self.prefix(n)}{words} {hops}"

    def next(self):
        """Begin the next cell: its destination and its socket."""
        self.number += 1
        self.open()

    def open(self):
        """Another socket of the cell."""
        self.destination = self.prefix(self.number).replace("0/24", "1").replace("/64", "1")
        self.mark = self.number if self.holder == "route of a rule" else 0
        self.socket = self.client.socket(self.family, socket.SOCK_DGRAM)
        self.socket.setsockopt(LEVEL[self.family], MTU_DISCOVER[self.family], DO)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.mark)
        if self.vrf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"vrf-red")
        self.socket.bind((self.source, 0))
        self.socket.connect((self.destination, 9))
        errqueue.receive_errors(self.socket)

    def kept(self):
        """The present cell, to resume() it."""
        return {name: getattr(self, name) for name in ("number", "destination", "mark", "socket")}

    def resume(self, kept):
        vars(self).update(kept)

    def tell(self, mtu):
        """An ICMP error about a packet of this cell's socket."""
        quoted = icmp.udp_quote(self.source, self.socket.getsockname()[1], self.destination, 9)
        icmp.send_too_big(self.router, self.client, mtu, quoted)

    def happen(self, commands):
        """Carry the commands out on the cell's route; "" or how long the kernel waited for who uses what they remove."""
        n, second = self.number, self.gateways[2]
        values = {"n": n, "member": 100 + n, "second": second, "host": self.destination, "hop": self.hop(n),
                  "second hop": self.hop(n, second), "route": self.route(n), "route mtu": self.route(n, words=" mtu 1400"),
                  "route second": self.route(n, gateway=second)}
        lines = [line for command in commands for line in
                 ([*self._nexthops(n), f"route add {self.route(n)}"] if command == "{again}" else [command.format(**values)])]
        with stopwatch() as took:
            self.ip(*lines)
        return f", after {took.seconds:.0f} s" if took.seconds > 2 else ""

    def told(self):
        """The path MTU that a packet of the socket meets: the one in the error that a too large one gets."""
        while errqueue.pending(self.socket):
            pass
        assert errno_of(self.socket.send, bytes(65000)) == "EMSGSIZE"
        return errqueue.next_error(self.socket).info

    def saw(self):
        """What a lookup finds, and where it differs the MTU that a packet of the socket meets."""
        way = lookup(self.client, self.destination, self.source, self.mark, self.vrf)
        told = self.told()
        mtu = way.mtu or self.link_mtu(way.interface)
        near = way.expires and EXPIRES - 10 < way.expires <= EXPIRES
        text = f"{mtu}{' locked' * way.locked}" + (f" for {EXPIRES if near else round(way.expires)} s" if way.expires else "")
        if self.family == V6 and self.holder in SEVERAL:
            return text
        return text if told == mtu else f"{text}, {told} for the socket"

    def link_mtu(self, index):
        """SIOCGIFMTU: netdevice(7)."""
        with self.client.entered():
            name = socket.if_indextoname(index)
        return struct.unpack("16xi", fcntl.ioctl(self.socket, SIOCGIFMTU, struct.pack("16si", name.encode(), 0)))[0]


@pytest.fixture
def destinations(net: Network) -> Callable[..., Cells]:
    """destinations(family, holder, count, own=False): see Cells."""
    return lambda *arguments, **words: Cells(net, *arguments, **words)
