"""Keys and peers of WireGuard devices: generic netlink, which has no command in iproute2.

Source: include/uapi/linux/wireguard.h, include/uapi/linux/genetlink.h.
"""

import ipaddress
import socket
import struct
from dataclasses import dataclass

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST

from netns.errors import missing_feature
from netns.hosts.host import Host
from netns.netlink.message import HEADER, attribute, attributes, message, nest
from netns.netlink.rtnl import exchange

_NETLINK_GENERIC = 16
_GENERIC = struct.Struct("=BBxx")               # struct genlmsghdr: command, version
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_SET_DEVICE = 1
_IFNAME, _PRIVATE_KEY, _LISTEN_PORT, _PEERS = 2, 3, 6, 8
_PEER_PUBLIC_KEY, _PEER_ENDPOINT, _PEER_ALLOWED = 1, 4, 9
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_LENGTH = 1, 2, 3


@dataclass(frozen=True)
class WireGuardPeer:
    """A peer's public key (RFC 7748, 32 bytes), its address and UDP port, and the prefix that it may send from."""

    public: bytes
    endpoint: tuple[str, int]
    allowed: str


def configure(host: Host, device: str, private: bytes, port: int, peer: WireGuardPeer) -> None:
    """Give a device its private key, its UDP port and a peer. Raises OSError, MissingFeature."""
    prefix = ipaddress.ip_network(peer.allowed)
    family = socket.AF_INET if prefix.version == 4 else socket.AF_INET6
    allowed = nest(0, attribute(_ALLOWED_FAMILY, struct.pack("=H", family)), attribute(_ALLOWED_ADDRESS, prefix.network_address.packed),
                   attribute(_ALLOWED_LENGTH, bytes([prefix.prefixlen])))
    entry = nest(0, attribute(_PEER_PUBLIC_KEY, peer.public), attribute(_PEER_ENDPOINT, _sockaddr(*peer.endpoint)),
                 nest(_PEER_ALLOWED, allowed))
    body = _GENERIC.pack(_SET_DEVICE, 1) + attribute(_IFNAME, device.encode() + b"\0") + attribute(_PRIVATE_KEY, private) \
        + attribute(_LISTEN_PORT, struct.pack("=H", port)) + nest(_PEERS, entry)
    exchange(host.namespace, _NETLINK_GENERIC, [message(_family(host), NLM_F_REQUEST | NLM_F_ACK, body)], [f"WireGuard device {device}"])


def _sockaddr(address: str, port: int) -> bytes:
    """struct sockaddr_in or sockaddr_in6."""
    packed = ipaddress.ip_address(address).packed
    if len(packed) == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, packed)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", port, 0, packed, 0)


def _family(host: Host) -> int:
    """The number of the generic netlink family."""
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as netlink:
        netlink.send(message(_CONTROL, NLM_F_REQUEST, _GENERIC.pack(_GET_FAMILY, 1) + attribute(_FAMILY_NAME, b"wireguard\0")))
        answer = netlink.recv(1 << 16)
    found = dict(attributes(answer, HEADER.size + _GENERIC.size)) if HEADER.unpack_from(answer)[1] == _CONTROL else {}
    if _FAMILY_ID not in found:
        raise missing_feature("the kernel has no WireGuard", OSError("no such generic netlink family"))
    return struct.unpack("=H", found[_FAMILY_ID])[0]
