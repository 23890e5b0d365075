"""Crafted ICMP errors and redirects, which quote a packet as RFC 792 and RFC 4443 require."""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from netns.hosts.host import Host, Interface
from netns.packets.packet import Packet

_ETHERNET = 14
# The receiver's counter for each type: RFC 2011, RFC 4293.
_COUNTED = {
    4: {3: "InDestUnreachs", 4: "InSrcQuenchs", 5: "InRedirects", 11: "InTimeExcds", 12: "InParmProbs"},
    6: {1: "InDestUnreachs", 2: "InPktTooBigs", 3: "InTimeExcds", 4: "InParmProblems"},
}
# RFC 1812, 4.3.2.3: as much as fits into 576 bytes; this is enough for every header that a kernel reads.
_QUOTED = 128


def quote(packet: Packet) -> bytes:
    """The start of the packet, as an ICMP error quotes it."""
    return packet.frame.data[_ETHERNET:_ETHERNET + _QUOTED]


def quote_next(packet: Packet) -> bytes:
    """Like quote(), with the sequence number of the next segment: TCP accepts errors about data in flight (RFC 5927, 4.1)."""
    quoted = bytearray(quote(packet))
    at = (40 if quoted[0] >> 4 == 6 else 20) + 4
    quoted[at:at + 4] = ((packet.seq + packet.length) % 2**32).to_bytes(4, "big")
    return bytes(quoted)


def udp_quote(source: str, sport: int, destination: str, dport: int, protocol: int = socket.IPPROTO_UDP) -> bytes:
    """The start of a UDP packet of 1000 bytes that was never sent; or of another `protocol`."""
    return header_quote(source, destination, protocol, struct.pack("!HHHH", sport, dport, 980, 0))


def header_quote(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """The start of an IP packet of 1000 bytes that was never sent: its header, and `payload` of what it carries."""
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    if len(addresses) == 8:
        return struct.pack("!BBHHHBBH", 0x45, 0, 1000, 0, 0x4000, 64, protocol, 0) + addresses + payload
    return struct.pack("!IHBB", 0x60000000, 980, protocol, 64) + addresses + payload


def send_too_big(router: Host, to: Host, mtu: int, quoted: bytes, confirm: bool = True) -> None:
    """The router tells `to` that the quoted packet, sent from one of its addresses, was too big for `mtu` bytes:
    fragmentation needed or ICMPv6 Packet Too Big.

    With `confirm` it returns once `to` has counted the message, whether or not `to` acted on it. Raises ExpectationFailed.
    """
    source = _source(quoted)
    if ":" in source:
        _send(router, to, source, struct.pack("!BBHI", 2, 0, 0, mtu) + quoted, "Icmp6.InPktTooBigs" if confirm else "")
    else:
        _send(router, to, source, struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted,
              "Icmp.InDestUnreachs" if confirm else "")


def send_error(
    router: Host, to: Host, kind: int, code: int, quoted: bytes, rest: int = 0, counted: bool = True,
    options: bytes = b""
) -> None:
    """The router sends `to` an ICMP error of this type and code about the quoted packet, sent from one of its addresses.

    `rest` is the 32 bits after the checksum: an MTU, a pointer, a length (RFC 4884). If `counted`, it returns once `to` has
    counted the message, whether or not `to` acted on it. `options` are IPv4 header options. Raises ExpectationFailed.
    """
    source = _source(quoted)
    group, version = ("Icmp6", 6) if ":" in source else ("Icmp", 4)
    counter = _COUNTED[version].get(kind, f"InType{kind}")
    _send(router, to, source, struct.pack("!BBHI", kind, code, 0, rest) + quoted,
          f"{group}.{counter}" if counted else "", options)


class Sender:
    """Sends ICMP messages of any type and code from `router` to `to`, through one raw socket."""

    def __init__(self, router: Host, to: Host, family: socket.AddressFamily) -> None:
        self.to = to
        self.version = 4 if family == socket.AF_INET else 6
        self.raw = router.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP if self.version == 4 else socket.IPPROTO_ICMPV6)

    def send(self, kind: int, code: int, quoted: bytes, rest: int = 0, counted: bool = True) -> None:
        """Like send_error(), for types that are not errors, too. Raises ExpectationFailed."""
        message = struct.pack("!BBHI", kind, code, 0, rest) + quoted
        if self.version == 4:
            message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        counter = f"IcmpMsg.InType{kind}" if self.version == 4 else f"Icmp6.InType{kind}"
        with _counted(self.to, counter if counted else ""):
            self.raw.sendto(message, (_source(quoted), 0))


def send_redirect(router: Host, to: Host, gateway: str, quoted: bytes) -> None:
    """The router tells `to` that `gateway` is a better next hop for the quoted packet's destination: RFC 792, RFC 4861
    (4.5), where both routers use their link-local addresses.

    Returns once `to` has counted the message. Raises ExpectationFailed.
    """
    if quoted[0] >> 4 == 6:
        return _send_redirect_6(router, to, gateway, quoted)
    message = struct.pack("!BBH4s", 5, 1, 0, socket.inet_aton(gateway)) + quoted
    _send(router, to, _source(quoted), message, "Icmp.InRedirects")


def _send_redirect_6(router: Host, to: Host, gateway: str, quoted: bytes) -> None:
    REDIRECTED_HEADER = 4
    interface = router.interfaces[to.role]
    padded = quoted + bytes(-len(quoted) % 8)
    addresses = socket.inet_pton(socket.AF_INET6, gateway) + quoted[24:40]
    option = struct.pack("!BB6x", REDIRECTED_HEADER, 1 + len(padded) // 8)
    with _counted(to, "Icmp6.InRedirects"), router.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.bind((link_local(interface), 0, 0, interface.index))
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        raw.sendto(struct.pack("!BBHI", 137, 0, 0, 0) + addresses + option + padded, (_source(quoted), 0))


def link_local(interface: Interface) -> str:
    """The link-local address that the kernel derives from the MAC address: RFC 4291, appendix A."""
    mac = bytes.fromhex(interface.mac.replace(":", ""))
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]))


def _source(quoted: bytes) -> str:
    return str(ipaddress.ip_address(quoted[12:16] if quoted[0] >> 4 == 4 else quoted[8:24]))


def _send(router: Host, to: Host, address: str, message: bytes, counter: str, options: bytes = b"") -> None:
    with _counted(to, counter):
        if ":" in address:
            # The kernel fills in the ICMPv6 checksum: RFC 3542, 3.1.
            with router.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
                raw.sendto(message, (address, 0))
        else:
            with router.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
                raw.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
                raw.sendto(message[:2] + struct.pack("!H", checksum(message)) + message[4:], (address, 0))


@contextmanager
def _counted(to: Host, counter: str) -> Iterator[None]:
    """At the end of the block wait until `to` has counted the message sent in it; without a counter do not wait.
    Raises ExpectationFailed."""
    before = to.counter(counter) if counter else 0
    yield
    if counter:
        to.await_counter(counter, 1, within=5, since=before)


def transport_checksum(source: str, destination: str, protocol: int, message: bytes) -> int:
    """The checksum with the pseudo-header of both addresses: RFC 768, RFC 9293 (3.1), RFC 8200 (8.1); the checksum field must be 0."""
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return checksum(addresses + struct.pack("!II", len(message), protocol) + message)


def checksum(message: bytes) -> int:
    """The RFC 1071 checksum of a message whose checksum field is 0."""
    padded = message + b"\0" * (len(message) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
