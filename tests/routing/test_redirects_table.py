"""Which ICMP redirects a host follows: RFC 1122, 3.2.2.2; RFC 1620; RFC 4861, 8.1 and 8.2; ip-sysctl.rst, accept_redirects,
secure_redirects and shared_media; by the kind of packet that they are about."""

import contextlib
import ipaddress
import socket
import struct
from dataclasses import dataclass, field

import pytest

from fixtures.icmp_errors import V4, V6
from fixtures.icmp_sockets import BEYOND, Socket, opened, prepare, quote
from fixtures.table import Measured, Must, Table
from fixtures.topologies import ROUTED
from netns.packets import icmp

pytestmark = pytest.mark.topology(ROUTED)

BETTER, OTHER_HOST = {V4: "192.0.2.77", V6: "fe80::77"}, {V4: "192.0.2.88", V6: "fe80::88"}
OFF_LINK, BETTER_MAC = "203.0.113.250", "00:00:5e:00:53:77"
PREFIX = {V4: "203.0.113.0/24", V6: "2001:db8:ff::/64"}
REDIRECT = {V4: 5, V6: 137}
BETTER_ROUTER, SAME_ROUTER = "the better router", "the same router"


@dataclass(frozen=True)
class Advice:
    """A redirect, the client's settings, and the router to which the next packets must go. `gateway` "" is the better router;
    `settings` are of the interface, and with "all." of all."""

    follow: bool
    gateway: str = ""
    code: int = 0
    settings: dict = field(default_factory=dict)
    source: str = ""
    listed: bool = False
    hops: int = 255
    header: bool = True
    source_text: str = ""


def accepting(both, either):
    return {f"accept_redirects {interface}, all {every}, forwarding {forwarding}": Advice(
        bool(interface and every if forwarding else interface or every),
        settings={"forwarding": forwarding, "accept_redirects": interface, "all.accept_redirects": every},
        source_text="ip-sysctl.rst, accept_redirects: both with forwarding, else one of them")
        for interface in both for every in either for forwarding in (0, 1)}


STRICT = {"shared_media": 0, "all.shared_media": 0, "secure_redirects": 0, "all.secure_redirects": 0}
SECURE = {**STRICT, "secure_redirects": 1}
NO_SOCKET = "valid, about a packet of no socket"
CASES = {
    V4: {
        NO_SOCKET: Advice(True),
        **accepting((0, 1), (0, 1)),
        **{f"code {code}": Advice(True, code=code) for code in range(4)},
        **{f"code {code}": Advice(False, code=code) for code in (4, 255)},
        "not shared, not secure": Advice(True, settings=STRICT),
        "not shared, secure, no default gateway": Advice(False, settings=SECURE, source_text="ip-sysctl.rst, secure_redirects"),
        "not shared, secure, a default gateway": Advice(True, settings=SECURE, listed=True, source_text="ip-sysctl.rst, secure_redirects"),
        "shared, secure, no default gateway": Advice(True, settings={"secure_redirects": 1}, source_text="ip-sysctl.rst, shared_media"),
        "not shared, gateway of another network": Advice(False, gateway=OFF_LINK, settings=STRICT, source_text="RFC 1122, 3.2.2.2"),
        "from another host": Advice(False, source=OTHER_HOST[V4], source_text="RFC 1122, 3.2.2.2: from the first-hop gateway only"),
        **{f"gateway {name}": Advice(False, gateway=address) for name, address in (
            ("unspecified", "0.0.0.0"), ("broadcast", "255.255.255.255"), ("of the network's broadcast", "192.0.2.255"),
            ("multicast", "224.0.0.5"), ("loopback", "127.0.0.1"), ("the host itself", "192.0.2.1"), ("the same", "192.0.2.2"))},
    },
    V6: {
        NO_SOCKET: Advice(True),
        "accept_redirects 1": Advice(True), "without the redirected packet": Advice(True, header=False),
        "accept_redirects 0": Advice(False, settings={"accept_redirects": 0}, source_text="ip-sysctl.rst"),
        "forwarding 1": Advice(False, settings={"forwarding": 1}, source_text="RFC 4861, 8.3: a router must not follow it"),
        "hop limit 254": Advice(False, hops=254), "code 1": Advice(False, code=1),
        "from a global address": Advice(False, source="2001:db8:1::2"), "from another host": Advice(False, source=OTHER_HOST[V6]),
        "target global": Advice(False, gateway="2001:db8:1::77"), "target multicast": Advice(False, gateway="ff02::1"),
        "target unspecified": Advice(False, gateway="::"),
    },
}
KINDS = {
    "UDP": Socket("UDP", "UDP"), "UDP, not connected": Socket("UDP", "UDP", connected=False, recverr=False),
    "raw": Socket("raw", "raw"), "ping": Socket("ping", "ping"),
    "UDP, closed": Socket("UDP", "UDP", closed=True), "raw, closed": Socket("raw", "raw", closed=True),
    "ping, closed": Socket("ping", "ping", closed=True),
}


def expected(family, case, which):
    source = case.source_text or {V4: "RFC 1122, 3.2.2.2", V6: "RFC 4861, 8.1"}[family]
    if not case.follow:
        return Must(SAME_ROUTER, source)
    if which.closed and which.kind != "UDP":
        return Measured("no document says whether a host follows a redirect about a packet of no socket")
    if not case.header:
        return Must(BETTER_ROUTER, "RFC 4861, 4.5: the option is not required")
    return Must(BETTER_ROUTER, source)


def cells(family):
    return {row: {kind: expected(family, case, which) for kind, which in KINDS.items()
                  if not case.follow or which.closed == (row == NO_SOCKET)} for row, case in CASES[family].items()}


IPV4 = Table("routing.redirects", "redirect", "about a packet of", "RFC 1122, 3.2.2.2", cells(V4))
IPV6 = Table("routing.redirects6", "redirect", "about a packet of", "RFC 4861, 8", cells(V6))


def prepared(net, family, case):
    """The client knows the neighbours, and the router has the addresses to send from."""
    client, router = net.nodes("client", "router")
    version, device = ("ipv4", "ipv6")[family == V6], client.interfaces["router"].name
    settings = {"forwarding": 0, "accept_redirects": 1}
    if family == V4:
        settings.update({"shared_media": 1, "secure_redirects": 1})
        settings.update({"all.accept_redirects": 1, "all.shared_media": 1, "all.secure_redirects": 0})
    settings.update(case.settings)
    client.pin({f"net.{version}.conf.{name if '.' in name else f'{device}.{name}'}": value for name, value in settings.items()})
    neighbours = [BETTER[family], OFF_LINK if family == V4 else "2001:db8:1::77"]
    commands = [f"neighbour replace {each} lladdr {BETTER_MAC} dev {device} router" for each in neighbours]
    if family == V6:
        commands.append(f"route add {PREFIX[V6]} via {icmp.link_local(router.interfaces['client'])} dev {device}")
    elif case.listed:
        commands.append(f"route add default via {BETTER[V4]} dev {device} metric 100")
    client.run(["ip", "-batch", "-"], stdin="\n".join(commands) + "\n")
    router.add_address(f"{OTHER_HOST[family]}/{24 if family == V4 else 64}", "client")


class Redirects:
    """Sends one case's redirects from the router to the client."""

    def __init__(self, net, family, case):
        self.client, self.router = net.nodes("client", "router")
        self.family, self.case = family, case
        interface = self.router.interfaces["client"]
        source = case.source or (self.router.address(V4, "client") if family == V4 else icmp.link_local(interface))
        self.raw = self.router.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP if family == V4 else socket.IPPROTO_ICMPV6)
        scope = interface.index if source.startswith("fe80") else 0
        self.raw.bind((source, 0, 0, scope) if family == V6 else (source, 0))
        if family == V6:
            self.raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, case.hops)

    def send(self, quoted, destination):
        gateway = ipaddress.ip_address(self.case.gateway or BETTER[self.family]).packed
        head = struct.pack("!BBH", REDIRECT[self.family], self.case.code, 0)
        if self.family == V4:
            message = head + gateway + quoted
            message = message[:2] + struct.pack("!H", icmp.checksum(message)) + message[4:]
            counter = "IcmpMsg.InType5"
        else:
            padded = quoted + bytes(-len(quoted) % 8)
            option = struct.pack("!BB6x", 4, 1 + len(padded) // 8) + padded if self.case.header else b""
            message = head + bytes(4) + gateway + ipaddress.ip_address(destination).packed + option
            counter = "Icmp6.InType137"
        before = self.client.counter(counter)
        self.raw.sendto(message, (self.client.address(self.family), 0))
        self.client.await_counter(counter, 1, within=5, since=before)


def next_hop(net, destination):
    """The router to which the client sends a datagram."""
    client = net["client"]
    family = V6 if ":" in destination else V4
    with client.capture("udp") as packets, client.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (destination, 9))
        packets.until("a datagram sent", lambda seen: seen.sent() != [], within=5)
    mac = packets.sent().only().frame.data[:6].hex(":")
    return {BETTER_MAC: BETTER_ROUTER, net["router"].interfaces["client"].mac: SAME_ROUTER}.get(mac, mac)


def check(net, family, row, table):
    case, here = CASES[family][row], net["client"].address(family)
    prepared(net, family, case)
    redirects = Redirects(net, family, case)
    prepare(net, family, KINDS["ping"])
    for number, column in enumerate(table):
        which, there = KINDS[column], BEYOND[family].format(number + 1)
        with contextlib.closing(opened(net, family, which, there)):
            redirects.send(quote(family, which, here, there), there)
            table.saw(next_hop(net, there))


@pytest.mark.table(IPV4)
@pytest.mark.parametrize("row", IPV4.rows)
def test_host_follows_the_redirects_that_it_may(net, row, table):
    """And no other: the next datagram to this destination goes to the better router, or to the same as before."""
    check(net, V4, row, table)


@pytest.mark.table(IPV6)
@pytest.mark.parametrize("row", IPV6.rows)
def test_host_follows_the_ipv6_redirects_that_it_may(net, row, table):
    """Those that are valid by RFC 4861, 8.1."""
    check(net, V6, row, table)
