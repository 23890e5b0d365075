"""What the end of a tunnel takes for its own: GRE, VXLAN, Geneve, FOU and GUE headers, right and wrong."""

import socket
import struct
from dataclasses import dataclass
from typing import Union

import pytest

from fixtures.table import Measured, OneOf, Table
from fixtures.topologies import LAN
from fixtures.tunnels import ETHERNET, FOU_PORT, GRE, GUE_PORT, IP_HEADER, V4, V6, TunnelKind, address, connect, statistics
from netns.packets.icmp import checksum, transport_checksum

pytestmark = pytest.mark.topology(LAN)

PORT = 7
DELIVERED, DROPPED, COUNTED = "delivered", "dropped", "dropped, and counted as an error"
OUTER = {"IPv4": V4, "IPv6": V6}
IPV4, EXPERIMENTAL = 0x0800, 0x88B5             # EtherTypes; the latter for local experiments (RFC 7042)
CHECKSUM, ROUTING, KEY, SEQUENCE, STRICT = 0x8000, 0x4000, 0x2000, 0x1000, 0x0800   # RFC 1701, 2890
RFC1701 = "RFC 2784, 2.3 has it discarded unless the receiver implements RFC 1701"


def datagram(data: bytes) -> bytes:
    """A UDP datagram for the server's socket inside the tunnel, in IPv4."""
    here, there = address(V4, 1), address(V4, 2)
    udp = struct.pack("!HHHH", 9, PORT, 8 + len(data), 0) + data
    udp = udp[:6] + struct.pack("!H", transport_checksum(here, there, socket.IPPROTO_UDP, udp)) + udp[8:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0)
    header += socket.inet_aton(here) + socket.inet_aton(there)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + udp


@dataclass(frozen=True)
class Gre:
    """A GRE header: the fields that are present, and what is wrong with it. A `late` one comes after another of a higher sequence
    number."""

    key: int = 0
    summed: bool = False
    numbered: bool = False
    flags: int = 0
    protocol: int = IPV4
    wrong: str = ""
    late: bool = False

    def around(self, packet: bytes, number: int) -> bytes:
        flags = self.flags | CHECKSUM * self.summed | KEY * bool(self.key) | SEQUENCE * self.numbered
        fields = struct.pack("!I", self.key) * bool(self.key) + struct.pack("!I", number) * self.numbered
        start = struct.pack("!HH", flags, self.protocol)
        if self.wrong == "cut off":
            return struct.pack("!HH", flags | KEY, self.protocol) + b"\0\0"
        if not self.summed:
            return start + fields + packet
        total = checksum(start + bytes(4) + fields + packet) ^ (self.wrong == "checksum")
        return start + struct.pack("!HH", total, 0) + fields + packet


PACKETS = {
    "plain": Gre(), "key 7": Gre(key=7), "key 8": Gre(key=8), "checksum": Gre(summed=True), "sequence": Gre(numbered=True),
    "old sequence": Gre(numbered=True, late=True), "key 7 and checksum": Gre(key=7, summed=True),
    "key 7 and sequence": Gre(key=7, numbered=True), "key 7, checksum and sequence": Gre(key=7, summed=True, numbered=True),
    "key 7, checksum and old sequence": Gre(key=7, summed=True, numbered=True, late=True),
    "wrong checksum": Gre(summed=True, wrong="checksum"),
    "key 7, wrong checksum and sequence": Gre(key=7, summed=True, numbered=True, wrong="checksum"),
    "version 1": Gre(flags=1), "version 7": Gre(flags=7), "routing": Gre(flags=ROUTING), "strict source route": Gre(flags=STRICT),
    "reserved bits": Gre(flags=0x0078), "experimental protocol": Gre(protocol=EXPERIMENTAL), "cut off": Gre(wrong="cut off"),
}
# The receiver's options of ip-link(8).
RECEIVERS = ("", "key 7", "csum", "seq", "key 7 csum seq")


def of_gre(options: str, packet: Gre) -> Union[str, OneOf, Measured]:
    """RFC 2784, 2.3 and 2.4; RFC 2890, 2; ip-link(8): key is the tunnel's in both directions, csum requires checksums, seq serialized
    packets."""
    if packet.wrong or packet.flags & (ROUTING | 7):
        return DROPPED
    if packet.key != (7 if "key" in options else 0):
        return DROPPED
    if "csum" in options and not packet.summed:
        return COUNTED
    if packet.summed and "csum" not in options:
        return Measured("ip-link(8) says what csum requires, not what becomes of a checksum that it does not require")
    if "seq" in options and (packet.late or not packet.numbered):
        return COUNTED
    if packet.protocol == EXPERIMENTAL:
        return DROPPED
    return OneOf((DELIVERED, DROPPED), RFC1701) if packet.flags & STRICT else DELIVERED


RECEIVED_GRE = Table("tunnels.gre", "receiver", "packet", "RFC 2784, RFC 2890, ip-link(8)", {
    f"gre {options}".strip() + f", {outer}": {name: of_gre(options, packet) for name, packet in PACKETS.items()}
    for outer in OUTER for options in RECEIVERS
})


class TunnelEnd:
    """The server's socket inside the tunnel, and what the client sends it in headers of its own making."""

    def __init__(self, net, kind):
        self.client, self.server = net.nodes("client", "server")
        self.outer = kind.outer
        connect(net, kind)
        self.socket = self.server.socket(V4, socket.SOCK_DGRAM)
        self.socket.bind((address(V4, 2), PORT))
        self.socket.settimeout(5)

    def send(self, protocol: int, payload: bytes) -> None:
        with self.client.socket(self.outer, socket.SOCK_RAW, protocol) as raw:
            raw.sendto(payload, (self.server.address(self.outer), 0))

    def show(self, protocol: int, payload: bytes, valid: bytes) -> str:
        """What became of the payload of that IP protocol; the `valid` one is sent after it."""
        before = statistics(self.server)
        self.send(protocol, payload)
        errors = statistics(self.server).since(before).receive_errors
        self.send(protocol, valid)
        if self.socket.recv(100) == b"data":
            assert self.socket.recv(100) == b"after"
            return DELIVERED + (", and counted as an error" if errors else "")
        return COUNTED if errors else DROPPED


@pytest.mark.table(RECEIVED_GRE)
@pytest.mark.parametrize("row", RECEIVED_GRE.rows)
def test_gre_receiver_takes_what_its_options_ask_for(net, row, table):
    """By key, checksum and sequence number; what RFC 2784 has discarded is discarded."""
    options, _comma, outer = row.removeprefix("gre").rpartition(", ")
    outer = OUTER[outer]
    name, extra = ("gre", "") if outer == V4 else ("ip6gre", "encaplimit none")
    receiver = TunnelEnd(net, TunnelKind(name, f"{name} {options} {extra}", V4, outer, IP_HEADER[outer] + GRE))
    valid = Gre(7 if "key" in options else 0, "csum" in options, "seq" in options)
    for number, column in enumerate(table, 1):
        packet, newest = PACKETS[column], 100 * number
        if packet.late:
            receiver.send(socket.IPPROTO_GRE, valid.around(datagram(b"first"), newest + 1))
            assert receiver.socket.recv(100) == b"first"
        table.saw(receiver.show(socket.IPPROTO_GRE, packet.around(datagram(b"data"), newest), valid.around(datagram(b"after"), newest + 2)))


# The port of UDP, the header, whether the checksum is right, wrong or 0.
def udp(receiver: TunnelEnd, port: int, payload: bytes, summed: str = "right") -> bytes:
    ends = [host.address(receiver.outer) for host in (receiver.client, receiver.server)]
    header = struct.pack("!HHHH", 4000, port, 8 + len(payload), 0)
    total = transport_checksum(*ends, socket.IPPROTO_UDP, header + payload)
    return header[:6] + struct.pack("!H", {"right": total, "wrong": total ^ 1, "zero": 0}[summed]) + payload


def vxlan(flags: int = 0x08, vni: int = 7, reserved: int = 0) -> bytes:
    """RFC 7348, 5."""
    return struct.pack("!B3xI", flags, vni << 8 | reserved)


def geneve(version: int = 0, bits: int = 0, vni: int = 7, options: bytes = b"", words: int = -1, protocol: int = 0x6558) -> bytes:
    """RFC 8926, 3.4; `words` is the length of the options that it claims."""
    return struct.pack("!BBHI", version << 6 | (len(options) // 4 if words < 0 else words), bits, protocol, vni << 8) + options


def gue(version: int = 0, control: bool = False, words: int = 0, protocol: int = socket.IPPROTO_IPIP, flags: int = 0) -> bytes:
    """draft-ietf-intarea-gue, 3.1."""
    return struct.pack("!BBH", version << 6 | control << 5 | words, protocol, flags)


DIVERGES = "RFC 7348, 5 has reserved bits ignored; vxlan_rcv() takes them for extensions that it does not know"
CRITICAL, OPTIONAL = struct.pack("!HBB", 0x0100, 0x81, 0), struct.pack("!HBB", 0x0100, 0x01, 0)    # RFC 8926, 3.5
SUMS = {"UDP checksum wrong": "wrong", "UDP checksum 0": "zero"}
# By kind: each header, and what becomes of the packet.
OVER_UDP = {
    "vxlan": {
        "VNI 7": (vxlan(), DELIVERED), "VNI 8": (vxlan(vni=8), DROPPED), "no VNI": (vxlan(flags=0), DROPPED),
        "reserved flags": (vxlan(flags=0x09), OneOf((DELIVERED, DROPPED, COUNTED), DIVERGES)),
        "reserved byte": (vxlan(reserved=1), OneOf((DELIVERED, DROPPED, COUNTED), DIVERGES)),
        "cut off": (b"\x08\0\0", DROPPED),
    },
    "geneve": {
        "VNI 7": (geneve(), DELIVERED), "VNI 8": (geneve(vni=8), DROPPED), "version 1": (geneve(version=1), DROPPED),
        "an option": (geneve(options=OPTIONAL), DELIVERED), "a critical option": (geneve(bits=0x40, options=CRITICAL), COUNTED),
        "options beyond the end": (geneve(words=63), DROPPED), "protocol IPv4": (geneve(protocol=IPV4), DROPPED),
        "cut off": (b"\0\0\x65", DROPPED),
    },
    "ipip fou": {"IPv4": (b"", DELIVERED)},
    "ipip gue": {
        "IPv4": (gue(), DELIVERED), "version 1": (b"", DELIVERED), "version 2": (gue(version=2), DROPPED),
        "header beyond the end": (gue(words=31), DROPPED), "cut off": (b"\0", DROPPED), "unknown flags": (gue(flags=0x8000), DROPPED),
    },
}
UDP_PORTS = {"vxlan": 4789, "geneve": 6081, "ipip fou": FOU_PORT, "ipip gue": GUE_PORT}


def zero_checksum(kind: str, options: str, outer: str) -> str:
    """RFC 6935: over IPv6 only where it is allowed; ip-link(8), udp6zerocsumrx."""
    return DELIVERED if outer == "IPv4" or "udp6zerocsumrx" in options else DROPPED


ROWS = [(kind, options, outer) for kind in OVER_UDP for outer in (("IPv4",) if "i" == kind[0] else OUTER)
        for options in ("", *(("udp6zerocsumrx",) if outer == "IPv6" else ()))]
RECEIVED_UDP = Table("tunnels.udp", "receiver", "packet", "RFC 7348, RFC 8926, draft-ietf-intarea-gue, RFC 6935, ip-link(8)", {
    f"{kind} {options}".strip() + f", {outer}": {
        **{column: expected for column, (_header, expected) in OVER_UDP[kind].items()},
        "UDP checksum wrong": DROPPED, "UDP checksum 0": zero_checksum(kind, options, outer),
    } for kind, options, outer in ROWS
})


def inside(kind: str, column: str, data: bytes) -> bytes:
    """What the header is followed by: a frame to the server's end, or a packet; nothing where the header is cut off."""
    if column == "cut off":
        return b""
    frame = bytes.fromhex("00005e0053f200005e0053f10800") if kind in ("vxlan", "geneve") else b""
    return frame + datagram(data)


@pytest.mark.table(RECEIVED_UDP)
@pytest.mark.parametrize("row", RECEIVED_UDP.rows)
def test_receiver_over_udp_takes_what_its_header_allows(net, row, table):
    """By network identifier, version, options and checksum."""
    words, _comma, outer = row.rpartition(", ")
    kind = max((each for each in OVER_UDP if words.startswith(each)), key=len)
    receiver = TunnelEnd(net, _kind(kind, words.removeprefix(kind), OUTER[outer]))
    headers, port = OVER_UDP[kind], UDP_PORTS[kind]
    first = next(iter(headers.values()))[0]
    valid = udp(receiver, port, first + inside(kind, "", b"after"))
    for column in table:
        header = headers[column][0] if column in headers else first
        payload = header + inside(kind, column, b"data")
        table.saw(receiver.show(socket.IPPROTO_UDP, udp(receiver, port, payload, SUMS.get(column, "right")), valid))


def _kind(name: str, options: str, outer: socket.AddressFamily) -> TunnelKind:
    words = {"vxlan": f"vxlan id 7 dstport 4789 {options}", "geneve": f"geneve id 7 {options}",
             "ipip fou": f"ipip encap fou encap-dport {FOU_PORT}", "ipip gue": f"ipip encap gue encap-dport {GUE_PORT}"}[name]
    listens = {"ipip fou": f"port {FOU_PORT} ipproto 4", "ipip gue": f"port {GUE_PORT} gue"}.get(name, "")
    carries_frames = name in ("vxlan", "geneve")
    return TunnelKind(name, words, V4, outer, IP_HEADER[outer] + 16 + ETHERNET * carries_frames, ethernet=carries_frames, listens=listens)
