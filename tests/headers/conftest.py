"""Ways that a packet takes through a router to a UDP socket, and what became of a packet that was sent as it stands."""

import ipaddress
import socket
import struct
from collections.abc import Callable, Sequence

import pytest

from netns import Network
from netns.attempt import errno_of
from netns.hosts import ipvs, tunnel
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.netlink import xfrm
from netns.packets.icmp import transport_checksum
from netns.traffic.closing import fence

V4, V6 = socket.AF_INET, socket.AF_INET6
PORT = 4000
ETHERTYPE = {V4: b"\x08\x00", V6: b"\x86\xdd"}
# An address that only some ways lead to: of the server, or of an IPVS service.
FAR = {V4: "203.0.113.1", V6: "2001:db8:ff::1"}
PREFIX = {V4: "203.0.113.0/24", V6: "2001:db8:ff::/64"}
NFT = {V4: "ip", V6: "ip6"}
UNREACHABLE = {V4: (3, 3), V6: (1, 4)}
ECHOES = {V4: (0, 8), V6: range(128, 256)}   # messages that are no errors
TUNNELS = {V4: {"ipip": "ipip", "gre": "gre"}, V6: {"ip6tnl": "ip6tnl", "sit": "sit", "gre": "gre"}}
IPVS = {"IPVS NAT": "-m", "IPVS direct routing": "-g", "IPVS tunnel": "-i"}


def ways(family):
    """The names of the ways."""
    return ("local", "forwarded", "conntrack", "DNAT", "SNAT", "reject", *IPVS, *TUNNELS[family], "ESP tunnel")


class Passage:
    """From the client through the router to a UDP socket on PORT of the router or the server; `destination` is where packets go."""

    def __init__(self, net: Network, family: socket.AddressFamily, name: str) -> None:
        self.family, self.name = family, name
        self.client, self.router, self.server = net.nodes("client", "router", "server")
        self.source = self.client.address(family)
        self.end = self.router if name in ("local", "reject") else self.server
        self.destination = self.router.address(family, "client") if self.end is self.router else self.server.address(family)
        self._open()
        self._inbox = self.end.socket(family, socket.SOCK_DGRAM)
        self._inbox.bind(("", PORT))
        with self.client.entered():
            self._wire = self.client.adopt(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        self._wire.bind(("to-router", 0))
        macs = [host.interfaces[peer].mac for host, peer in ((self.router, "client"), (self.client, "router"))]
        self._ethernet = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in macs) + ETHERTYPE[family]
        self.count = 0
        self.last = b""
        self.fence()

    def _open(self) -> None:
        name, table = self.name, f"{NFT[self.family]} kdrift-way"
        if name == "conntrack":
            self.router.nft(f"add table {table}\nadd chain {table} forward {{ type filter hook forward priority 0; }}\n"
                            f"add rule {table} forward ct state invalid counter")
        elif name == "DNAT":
            self._far()
            self.router.add_address(self.destination)
            self.router.nft(f"add table {table}\nadd chain {table} pre {{ type nat hook prerouting priority -100; }}\n"
                            f"add rule {table} pre {NFT[self.family]} daddr {self.destination} dnat to {self.server.address(self.family)}")
        elif name == "SNAT":
            self.router.nft(f"add table {table}\nadd chain {table} post {{ type nat hook postrouting priority 100; }}\n"
                            f"add rule {table} post oifname to-server masquerade")
        elif name == "reject":
            self.router.nft(f"add table {table}\nadd chain {table} input {{ type filter hook input priority 0; }}\n"
                            f"add rule {table} input udp dport {PORT} reject")
        elif name in IPVS:
            self._balance(IPVS[name])
        elif name in TUNNELS[self.family]:
            self._tunnel(TUNNELS[self.family][name])
        elif name == "ESP tunnel":
            self._protect()

    def _far(self) -> None:
        self.destination = FAR[self.family]

    def _balance(self, method: str) -> None:
        self._far()
        at, real = (f"[{address}]" if self.family == V6 else address for address in (self.destination, self.server.address(self.family)))
        self.router.run(["ipvsadm", "--restore"], stdin=f"-A -u {at}:{PORT} -s rr\n-a -u {at}:{PORT} -r {real}:{PORT} {method}\n")
        self.router.add_address(self.destination)
        if method == "-i":
            ipvs.real_server(self.server, self.destination)
        elif method == "-g":
            self.server.add_address(self.destination)

    def _tunnel(self, kind: str) -> None:
        """From the router to the server; the address that packets go to is the server's end of it."""
        self._far()
        outer = V6 if kind == "ip6tnl" else V4
        ends = self.router.address(outer, "server"), self.server.address(outer)
        tunnel.add(self.router, "tun", kind, "local", ends[0], "remote", ends[1], routes=(PREFIX[self.family],))
        tunnel.add(self.server, "tun", kind, "local", ends[1], "remote", ends[0], address=self.destination)

    def _protect(self) -> None:
        ends = self.router.address(self.family, "server"), self.server.address(self.family)
        self._far()
        self.server.add_address(self.destination)
        network = str(ipaddress.ip_interface(f"{self.source}/{24 if self.family == V4 else 64}").network)
        there, back = (xfrm.Selector(*pair) for pair in ((network, self.destination), (self.destination, network)))
        for host, way in ((self.router, ("out", "fwd")), (self.server, ("in", "out"))):
            selectors = (there, back)
            templates = [xfrm.Template(*pair, mode="tunnel") for pair in (ends, ends[::-1])]
            xfrm.add(host, xfrm.SA(*ends, spi=1001, mode="tunnel"), xfrm.SA(*ends[::-1], spi=1002, mode="tunnel"),
                     *(xfrm.Policy(selector, template, direction=direction)
                       for selector, template, direction in zip(selectors, templates, way)))
        self.router.run(["ip", "route", "add", self.destination, "via", self.server.address(self.family)])

    def fence(self) -> None:
        """Return when the server has dealt with all that the client has sent."""
        fence(self.client, self.server, self.server.address(self.family))

    def datagram(self, size: int = 40) -> bytes:
        """The UDP header and a payload of so many bytes, unlike that of the one before."""
        self.count += 1
        payload = (struct.pack("!I", self.count) * (size // 4 + 1))[:size]
        message = struct.pack("!HHHH", 5000 + self.count, PORT, 8 + size, 0) + payload
        check = transport_checksum(self.source, self.destination, socket.IPPROTO_UDP, message) or 0xFFFF
        self.last = message[:6] + struct.pack("!H", check) + message[8:]
        return self.last

    def transmit(self, *packets: bytes) -> None:
        for packet in packets:
            self._wire.send(self._ethernet + packet)

    def outcome(self, *packets: bytes, payload: Sequence[bytes], pause: Callable[[], object] | None = None) -> str:
        """Send the packets, and pause: whether each payload arrives, and the ICMP errors that come back."""
        with self.client.capture("icmp" if self.family == V4 else "icmpv6") as seen:
            self.transmit(*packets)
            self.fence()
            if pause:
                pause()
                self.fence()
        arrived = []
        while not isinstance(data := errno_of(self._inbox.recv, 1 << 17, socket.MSG_DONTWAIT), str):
            arrived.append("delivered" if data in payload else f"{len(data)} other bytes delivered")
        errors = [self._error(packet.icmp) for packet in seen.received()
                  if packet.icmp[0] not in ECHOES[self.family]]
        if self.name == "reject":
            # The answer of a firewall stands for the delivery that it prevents.
            said = f"{'/'.join(map(str, UNREACHABLE[self.family]))}"
            errors, arrived = [each for each in errors if each != said], arrived + ["delivered" for each in errors if each == said]
        return ", ".join([*arrived, *errors]) or "nothing"

    def _error(self, message: bytes) -> str:
        """Type, code and pointer of an error."""
        kind, code = message[:2]
        text = f"{kind}/{code}"
        if self.family == V4 and kind == 12:
            text += f" at {message[4]}"
        elif self.family == V6 and kind == 4:
            text += f" at {int.from_bytes(message[4:8], 'big')}"
        return text


@pytest.fixture(autouse=True)
def pinned(net: Network) -> None:
    """What outcomes depend on: no limit to errors, and fragments that are not kept for long."""
    for host in net.hosts.values():
        host.pin({**NO_ICMP_LIMITS, "net.ipv4.ipfrag_time": 2, "net.ipv6.ip6frag_time": 2})


@pytest.fixture
def way(net: Network, row: str) -> Passage:
    """The way of the table's row, "FAMILY, NAME"."""
    family, _, name = row.partition(", ")
    return Passage(net, {"IPv4": V4, "IPv6": V6}[family], name)


