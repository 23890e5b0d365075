"""A host's path MTUs and next hops, and the ICMP errors about them: RFC 1191, RFC 8201."""

import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netns.hosts.host import Host
from netns.hosts.sysctl import global_sysctl
from netns.named import NamedList, name_of
from netns.packets.packet import Packet

# Type and code.
_FRAGMENTATION_NEEDED, _PACKET_TOO_BIG = b"\3\4", b"\2\0"
_EXPIRY = {socket.AF_INET: "net.ipv4.route.mtu_expires", socket.AF_INET6: "net.ipv6.route.mtu_expires"}


@dataclass(frozen=True)
class PathMtu:
    """The answer of `ip route get`: `mtu` in bytes if an exception or the route has one, `expires` of an exception in whole
    seconds (rounded down), `locked` if packets go without DF, the next hop, and `redirected` if an ICMP redirect set it."""

    mtu: int | None
    expires: int | None
    locked: bool
    via: str | None
    device: str | None
    redirected: bool


def path(host: Host, destination: str, *selectors: str) -> PathMtu:
    """The path that the host would use now. `selectors` are more arguments of `ip route get`. Raises CommandError."""
    # The text, because ip -j omits the lock.
    answer = host.run(["ip", "-o", "route", "get", destination, *selectors])
    mtu = re.search(r" mtu (lock )?(\d+)", answer)
    expires = re.search(r" expires (\d+)sec", answer)
    words = answer.split()
    return PathMtu(
        mtu=int(mtu[2]) if mtu else None,
        expires=int(expires[1]) if expires else None,
        locked=bool(mtu and mtu[1]),
        via=words[words.index("via") + 1] if "via" in words else None,
        device=words[words.index("dev") + 1],
        redirected="redirected" in answer,
    )


def announced(packet: Packet) -> int | None:
    """The MTU in bytes that an ICMP fragmentation needed (RFC 1191, 4) or ICMPv6 Packet Too Big (RFC 4443, 3.2) announces;
    None for any other packet."""
    if packet.icmp is None:
        return None
    if packet.protocol == "icmp":
        return int.from_bytes(packet.icmp[6:8], "big") if packet.icmp[:2] == _FRAGMENTATION_NEEDED else None
    return int.from_bytes(packet.icmp[4:8], "big") if packet.icmp[:2] == _PACKET_TOO_BIG else None


def too_big(packets: Iterable[Packet]) -> NamedList:
    """The packets that announce an MTU."""
    return NamedList(f"ICMP errors with an MTU among {name_of(packets)}", (packet for packet in packets if announced(packet) is not None))


@contextmanager
def expiry(host: Host, family: socket.AddressFamily, seconds: int) -> Iterator[None]:
    """Exceptions that the host learns within the block expire after so many seconds; the default is 600.

    Kernels before 5.18 have a single mtu_expires for IPv4, in the initial network namespace. Raises MissingFeature if this
    process may not write it there.
    """
    name = _EXPIRY[family]
    try:
        before = host.sysctl(name)
    except FileNotFoundError:
        with global_sysctl(name, seconds):
            yield
        return
    host.sysctl(name, seconds)
    try:
        yield
    finally:
        host.sysctl(name, before)


def learned(host: Host, destination: str) -> int:
    """The path MTU in bytes that a new UDP socket goes by: IP_MTU, IPV6_MTU. Much cheaper than path(). Raises OSError."""
    with host.socket(socket.AF_INET6 if ":" in destination else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return of_new_peer(sock, destination)


def of_new_peer(sock: socket.socket, destination: str) -> int:
    """Connect a UDP socket to the destination; see of_socket()."""
    sock.connect((destination, 9))
    return of_socket(sock)


def of_socket(sock: socket.socket) -> int:
    """The path MTU in bytes that a connected socket goes by: IP_MTU, IPV6_MTU (ip(7), ipv6(7)). Raises OSError."""
    return sock.getsockopt(*(socket.IPPROTO_IPV6, 24) if sock.family == socket.AF_INET6 else (socket.IPPROTO_IP, 14))


def never_fragment(sock: socket.socket) -> None:
    """Refuse what exceeds the path MTU: IP_PMTUDISC_DO of IP_MTU_DISCOVER or IPV6_MTU_DISCOVER (ip(7), ipv6(7))."""
    sock.setsockopt(*(socket.IPPROTO_IPV6, 23) if sock.family == socket.AF_INET6 else (socket.IPPROTO_IP, 10), 2)
