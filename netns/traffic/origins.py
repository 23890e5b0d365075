"""Packets of every origin that a routing rule can tell apart: of each kind of local socket, forwarded, tunnelled, and replies.

Each leaves a router for a destination of its own, from the router's address and port 4000 to port 5000, with TOS 0x10; sockets belong to
user 1000 and have the mark 7. What is forwarded comes from the client, and gets its mark from nftables.
"""

import os
import socket
import struct
from collections.abc import Callable
from functools import cache

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet

from netns.errors import MissingOnHost
from netns.hosts.host import Host
from netns.netlink import ipsec, xfrm

V4 = socket.AF_INET
SPORT, DPORT, MARK, TOS, USER = 4000, 5000, 7, 0x10, 1000
EXPERIMENT = 253                            # an IP protocol for experiments: RFC 3692
IPV6_TCLASS, IPV6_HDRINCL = 67, 36
BEHIND_ESP = {V4: "198.18.0.1", socket.AF_INET6: "2001:db8:c::1"}


class Origins:
    """Sends packets of one family from the `router`, or through it from the `client`."""

    def __init__(self, client: Host, router: Host, family: int) -> None:
        self.client, self.router, self.family = client, router, family
        self.source, self.of_client = router.address(family), client.address(family)

    def prepare(self) -> None:
        """Let the router mark what it forwards, answer, and reply with the mark of what it answers."""
        self.router.pin({"net.ipv4.ping_group_range": "0 0", "net.ipv4.fwmark_reflect": 1, "net.ipv6.fwmark_reflect": 1})
        self.router.nft("add table inet marks\n"
                        "add chain inet marks arriving { type filter hook prerouting priority -300; }\n"
                        f"add rule inet marks arriving iifname to-client meta mark set {MARK}")

    def socket(self, kind: int, protocol: int = 0, bound: bool = True) -> socket.socket:
        """A socket of the user, with the mark and the TOS, closed by the caller."""
        sock = self.router.socket(self.family, kind, protocol)
        try:
            os.fchown(sock.fileno(), USER, -1)
        except OSError as error:
            raise MissingOnHost(f"cannot give a socket to user {USER}: {error.strerror}") from error
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.family == V4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, TOS)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TCLASS, TOS)
        if bound:
            sock.bind((self.source, SPORT if kind != socket.SOCK_RAW else 0))
        return sock

    def tcp(self, to: str) -> None:
        """connect(), not waited for."""
        with self.socket(socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            sock.setblocking(False)
            try:
                sock.connect((to, DPORT))
            except BlockingIOError:
                pass

    def udp(self, to: str) -> None:
        """sendto() on an unconnected socket."""
        with self.socket(socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (to, DPORT))

    def udp_unbound(self, to: str, device: str = "") -> None:
        """By the given device, whatever rules say of this datagram."""
        with self.socket(socket.SOCK_DGRAM, bound=False) as sock:
            if device:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            sock.sendto(b"x", (to, DPORT))

    def udp_connected(self, to: str) -> None:
        with self.socket(socket.SOCK_DGRAM) as sock:
            sock.connect((to, DPORT))
            sock.send(b"x")

    def raw(self, to: str) -> None:
        """A protocol without ports."""
        with self.socket(socket.SOCK_RAW, EXPERIMENT) as sock:
            sock.sendto(bytes(8), (to, 0))

    def ping(self, to: str) -> None:
        with self.socket(socket.SOCK_DGRAM, socket.IPPROTO_ICMP if self.family == V4 else socket.IPPROTO_ICMPV6) as sock:
            sock.sendto(struct.pack("!BBHHH", 8 if self.family == V4 else 128, 0, 0, 0, 1), (to, 0))

    def header_included(self, to: str) -> None:
        """A datagram with its header, by a socket of IPPROTO_RAW."""
        with self.socket(socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            if self.family != V4:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
            sock.sendto(datagram(self.source, to, "udp"), (to, 0))

    def esp(self, to: str) -> None:
        """A datagram in a tunnel whose other end is `to`: before, call protect()."""
        with self.socket(socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (BEHIND_ESP[self.family], DPORT))

    def protect(self, to: str, behind: str = "", spi: int = 0x1001) -> None:
        """Let ESP carry what goes to `behind`, by default BEHIND_ESP, to `to`."""
        xfrm.add(self.router, ipsec.SA(self.source, to, spi=spi, mode="tunnel"),
                 ipsec.Policy(ipsec.Selector(self.source, behind or BEHIND_ESP[self.family]),
                              ipsec.Template(self.source, to, mode="tunnel")))

    def forwarded(self, what: str, source: str = "") -> Callable[[str], None]:
        """What datagram() makes, from the client through the router; `source` is by default the client's address."""
        return lambda to: self.inject(datagram(source or self.of_client, to, what), to)

    def reply(self, what: str) -> Callable[[str], None]:
        """The router's answer: the client sends what asks for it from the address that the answer goes to."""
        return lambda to: self.inject(request(self.source, to, what), self.source)

    def inject(self, packet: bytes, to: str) -> None:
        """Send a packet with its header from the client."""
        with self.client.socket(self.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            sock.sendto(packet, (to, 0))


def _ip(source: str, to: str, **fields: int) -> Packet:
    if ":" in source:
        return IPv6(src=source, dst=to, tc=TOS, hlim=fields.get("ttl", 64))
    return IP(src=source, dst=to, tos=TOS, **fields)


@cache
def datagram(source: str, to: str, what: str) -> bytes:
    """A packet with its header: "tcp", "udp", "icmp", or "fragment", the second one of a UDP datagram."""
    if what == "fragment":
        if ":" in source:
            return bytes(_ip(source, to) / IPv6ExtHdrFragment(nh=17, offset=1, id=1) / bytes(8))
        return bytes(_ip(source, to, frag=1, proto=17) / bytes(8))
    echo = ICMPv6EchoRequest(id=1) if ":" in source else ICMP(id=1)
    header = {"tcp": TCP(sport=SPORT, dport=DPORT, flags="S"), "udp": UDP(sport=SPORT, dport=DPORT), "icmp": echo}[what]
    return bytes(_ip(source, to) / header)


@cache
def request(host: str, answer_to: str, what: str) -> bytes:
    """The packet that makes `host` answer to `answer_to` with a "SYN-ACK" or a "RST" from SPORT to DPORT, an "echo reply" or a
    "port unreachable"."""
    echo = ICMPv6EchoRequest(id=1) if ":" in host else ICMP(id=1)
    header = {"SYN-ACK": TCP(sport=DPORT, dport=SPORT, flags="S"), "RST": TCP(sport=DPORT, dport=SPORT, flags="A"),
              "echo reply": echo, "port unreachable": UDP(sport=DPORT, dport=SPORT)}[what]
    return bytes(_ip(answer_to, host) / header)
