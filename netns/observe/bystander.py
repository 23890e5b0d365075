"""A listener for what other network namespaces must keep to themselves: rtnetlink(7) notifications reach the sockets of the namespace
in which something happened, and no others."""

import os
import socket

from pyroute2.netlink import rtnl

from netns.netlink.message import HEADER, attributes

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
# include/uapi/linux/rtnetlink.h, enum rtnetlink_groups: links, neighbours, addresses, routes and rules of both families, user options of
# router advertisements, bridge groups, namespace ids, next hops, VLANs of bridges, tunnel entries.
_GROUPS = (1, 3, 5, 7, 8, 9, 11, 19, 20, 26, 28, 32, 33, 34)
_NAMES = {number: name for name, number in vars(rtnl).items() if name.startswith("RTM_") and isinstance(number, int)}
_LINK_HEADER, _NAME = 16, 3                 # struct ifinfomsg, IFLA_IFNAME
# Modules create these when they are loaded, those of tunnels in each namespace.
_FALLBACKS = (b"tunl0", b"sit0", b"ip6tnl0", b"gre0", b"gretap0", b"erspan0", b"ip6gre0", b"ip_vti0", b"ip6_vti0",
              b"dummy0", b"ifb0", b"ifb1", b"bond0")


class Bystander:
    """Listens in the calling thread's namespace, in which nothing happens. Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))           # one without an address hears nothing
        self._socket.setblocking(False)
        for group in _GROUPS:
            try:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            except OSError:
                pass                        # the kernel does not have it yet

    def heard(self) -> list[str]:
        """The notifications since the last call, by their names. Raises OSError."""
        found = []
        while True:
            try:
                datagram = self._socket.recv(1 << 16)
            except BlockingIOError:
                return found
            _length, kind, *_rest = HEADER.unpack_from(datagram)
            body = datagram[HEADER.size:]
            links = kind in (rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK)
            name = dict(attributes(body, _LINK_HEADER)).get(_NAME, b"").rstrip(b"\0") if links else b""
            if name not in _FALLBACKS:
                found.append(f"{_NAMES.get(kind, kind)}{' ' * bool(name)}{os.fsdecode(name)}")
