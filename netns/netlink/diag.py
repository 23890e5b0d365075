"""Sockets as ss(8) lists them, with the details of sock_diag(7) that /proc does not have."""

import errno
import os
import socket
import struct

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR

from netns.errors import MissingFeature
from netns.hosts.host import Host
from netns.netlink.message import HEADER, message
from netns.traffic.tcp import STATES

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
# struct inet_diag_req_v2: all TCP sockets over IPv4, in no state at all.
_REQUEST = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0) + bytes(48)

# struct inet_diag_req_v2 with struct inet_diag_sockid: both ports and addresses, the interface, and INET_DIAG_NOCOOKIE.
_ONE = struct.Struct("=BBBxI2s2s16s16sI8s")


def state(host: Host, family: int, local: tuple[str, int], remote: tuple[str, int]) -> str:
    """The state of the host's connection between two addresses and ports, a name in traffic.tcp.STATES; "LISTEN" if there is only a
    listener, "CLOSE" if there is none. Raises MissingFeature."""
    ports = (struct.pack("!H", end[1]) for end in (local, remote))
    addresses = (socket.inet_pton(family, end[0]).ljust(16, b"\0") for end in (local, remote))
    request = _ONE.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF, *ports, *addresses, 0, b"\xff" * 8)
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.send(message(_SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, request))
        answer = netlink.recv(1 << 16)
    (kind,), (status,) = struct.unpack_from("=H", answer, 4), struct.unpack_from("=i", answer, HEADER.size)
    if kind != NLMSG_ERROR:
        # struct inet_diag_msg: the family, then the state.
        return STATES[answer[HEADER.size + 1]]
    if status != -errno.ENOENT:
        raise MissingFeature(f"the kernel has no tcp_diag (CONFIG_INET_DIAG): {os.strerror(-status)}")
    return "CLOSE"


def listing(host: Host, *options: str) -> str:
    """The output of `ss -t` with these options. Raises MissingFeature where ss would fall back to /proc."""
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.send(message(_SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, _REQUEST))
        answer = netlink.recv(1 << 16)
    (kind,), (status,) = struct.unpack_from("=H", answer, 4), struct.unpack_from("=i", answer, HEADER.size)
    if kind in (NLMSG_DONE, NLMSG_ERROR) and status:
        raise MissingFeature("the kernel has no tcp_diag (CONFIG_INET_DIAG)")
    return host.run(["ss", "-t", *options])
