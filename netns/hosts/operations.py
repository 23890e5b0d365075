"""What users try to do with devices and sockets, and the right that each of it needs.

Source: capabilities(7), tuntap.rst, socket(7), netdevice(7), setns(2), unshare(2); include/uapi/linux/if_link.h, if_tun.h, sockios.h.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from netns import libc
from netns.attempt import errno_of
from netns.hosts.namespace import NetworkNamespace
from netns.hosts.user import User
from netns.netlink import routes, rtnl
from netns.netlink.message import attribute, message, nest

_NEWLINK, DELETE, _NEWNEIGH, _NEWQDISC = 16, 17, 28, 36
_ADD, _SET = 0x605, 0x5                     # NLM_F_REQUEST | NLM_F_ACK, and NLM_F_CREATE | NLM_F_EXCL
_ADDRESS, _IFNAME, _MTU, _LINK, _LINKINFO, _ALIAS, _NET_NS_FD = 1, 3, 4, 5, 18, 20, 28
_KIND, _DATA, _PEER = 1, 2, 1
_UP, _PROMISC = 0x1, 0x100
_LINK_HEADER = struct.Struct("=BxHiII")
_TUN, _TAP, _MULTI_QUEUE, _NO_PI = 0x1, 0x2, 0x100, 0x1000
_SETIFF, _SETPERSIST, _SETOWNER, _SETGROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
_IFREQ = struct.Struct("=16sH22x")
MINE, OTHERS = 1000, 3000
# By device: owner and group of each persistent tun, None for neither.
TUNS = {"owned": (MINE, None), "others": (OTHERS, None), "group": (None, MINE), "othergroup": (None, OTHERS), "both": (MINE, OTHERS),
        "free": (None, None)}
_IP_TRANSPARENT, _TCP_REPAIR, _SO_PRIORITY, _SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 19, 19, 12, 33, 32


@dataclass(frozen=True)
class Operation:
    """`attempt` returns nothing, and raises OSError where it is refused. `needs` is a capability, " or " between several, "" for none;
    `refusal` is the errno without it. `since` says that older kernels do not take the other capability, `why` that no document says who
    may."""

    attempt: Callable[["Operator"], object]
    needs: str = "CAP_NET_ADMIN"
    refusal: str = "EPERM"
    group: str = ""
    since: str = ""
    why: str = ""


def link(name: str, *parts: bytes, index: int = 0, flags: int = 0, change: int = 0, kind: int = _NEWLINK, how: int = _ADD) -> bytes:
    """A message about an interface, named or by its index."""
    named = (attribute(_IFNAME, name.encode() + b"\0"),) if name else ()
    return message(kind, how, _LINK_HEADER.pack(0, 0, index, flags, change) + b"".join((*named, *parts)))


def veth(name: str, peer: str) -> bytes:
    """A pair of these names."""
    other = _LINK_HEADER.pack(0, 0, 0, 0, 0) + attribute(_IFNAME, peer.encode() + b"\0")
    return link(name, nest(_LINKINFO, attribute(_KIND, b"veth"), nest(_DATA, attribute(_PEER, other))))


def kind_of_link(name: str, kind: str, *data: tuple[int, bytes], lower: int = 0) -> bytes:
    """A device of this kind, with these attributes of its own, over the one with the index `lower`."""
    own = nest(_DATA, *(attribute(number, value) for number, value in data))
    below = (attribute(_LINK, struct.pack("=I", lower)),) if lower else ()
    return link(name, *below, nest(_LINKINFO, attribute(_KIND, kind.encode()), own))


def move_to(index: int, namespace: int) -> bytes:
    """Move the device to the network namespace of this descriptor."""
    return link("", attribute(_NET_NS_FD, struct.pack("=i", namespace)), index=index, how=_SET)


def make_tun(node: Path, name: str, owner: int | None, group: int | None) -> None:
    """A persistent tun with several queues, in the caller's network namespace."""
    descriptor = _attached(node, name, _TUN | _MULTI_QUEUE)
    try:
        for request, number in ((_SETOWNER, owner), (_SETGROUP, group), (_SETPERSIST, 1)):
            if number is not None:
                fcntl.ioctl(descriptor, request, number)
    finally:
        os.close(descriptor)


def _attached(node: Path, name: str, flags: int) -> int:
    descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _SETIFF, _IFREQ.pack(name.encode(), flags | _NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def write(file: str, text: str) -> None:
    Path(file).write_text(text)


def prepare(namespace: NetworkNamespace, node: Path) -> None:
    """The devices that operations are about."""
    pairs = [veth(f"v-{name}", f"p-{name}") for name in ("set", "delete", "rename", "move")]
    routes.carry_out(namespace, [rtnl.loopback_up().data, *pairs])
    with namespace.entered():
        for name, (owner, group) in TUNS.items():
            make_tun(node, f"t-{name}", owner, group)
        index = socket.if_nametoindex("v-set")
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("1024")
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("1 0")
    routes.carry_out(namespace, [link("", index=index, flags=_UP, change=_UP, how=_SET), routes.address(index, "198.18.9.1/24")])


class Operator:
    """A process of a user, in a network namespace that prepare() has made ready before the first operation."""

    def __init__(self, user: User, node: Path, other: int) -> None:
        self.node, self.other = node, other
        user.become()

    def all(self) -> dict[str, str]:
        """The errno of each operation, "done" if it succeeds."""
        return {name: errno_of(operation.attempt, self) or "done" for name, operation in OPERATIONS.items()}

    def entered(self) -> nullcontext:
        """For rtnl: the process is where its requests go."""
        return nullcontext()

    def errno(self, request: bytes) -> str:
        """What the kernel says to it, "done" for success."""
        return errno_of(self.ask, request) or "done"

    def ask(self, request: bytes) -> None:
        number = routes.outcomes(self, [request])[0]
        if number:
            raise OSError(number, os.strerror(number))

    def attach(self, name: str, flags: int = _TUN | _MULTI_QUEUE) -> int:
        """To a tun: its descriptor."""
        return _attached(self.node, name, flags)

    def after_attaching(self, request: int, value: int) -> None:
        """An ioctl on the tun that the user owns; without it EBADF."""
        try:
            descriptor = self.attach("t-owned")
        except OSError as error:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from error
        try:
            fcntl.ioctl(descriptor, request, value)
        finally:
            os.close(descriptor)

    def set(self, *parts: bytes, **fields: int) -> None:
        self.ask(link("", *parts, index=socket.if_nametoindex("v-set"), how=_SET, **fields))

    def ioctl(self, request: int, data: bytes, name: str = "v-set") -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, request, struct.pack("=16s24s", name.encode(), data))

    def option(self, level: int, option: int, value: int | bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setsockopt(level, option, value)

    def open(self, *kind: int) -> None:
        socket.socket(*kind).close()

    def bind(self, port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.bind(("127.0.0.1", port))

    def in_child(self, call: Callable[[], None]) -> None:
        """In a process of its own, since it changes where the process is."""
        pid = os.fork()
        if not pid:
            try:
                call()
                os._exit(0)
            except OSError as error:
                os._exit(error.errno)
        number = os.WEXITSTATUS(os.waitpid(pid, 0)[1])
        if number:
            raise OSError(number, os.strerror(number))

    def move(self) -> None:
        self.ask(move_to(self.index("v-move"), self.other))

    def list_routes(self) -> None:
        routes.shown(self, socket.AF_INET)

    def listen(self) -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.bind((0, 1))

    def index(self, name: str) -> int:
        return socket.if_nametoindex(name)


# Memory and debugging are no resources of a network namespace: user_namespaces(7).
_FIRST = "the first user namespace"
_LIMIT = "socket(7): since Linux 5.17 CAP_NET_RAW is enough"
_UNSAID = "tuntap.rst does not say who may do it with a device that is attached"
_V4 = socket.AF_INET
OPERATIONS = {
    "create a tun": Operation(lambda self: os.close(self.attach("new-tun"))),
    "create a tap": Operation(lambda self: os.close(self.attach("new-tap", _TAP))),
    "attach to its own tun": Operation(lambda self: os.close(self.attach("t-owned")), group="tun of its own"),
    "attach to another's tun": Operation(lambda self: os.close(self.attach("t-others"))),
    "attach to its group's tun": Operation(lambda self: os.close(self.attach("t-group")), group="tun of its own"),
    "attach to another group's tun": Operation(lambda self: os.close(self.attach("t-othergroup"))),
    "attach to its own tun of another group": Operation(
        lambda self: os.close(self.attach("t-both")), why="tuntap.rst does not say whether owner and group have to agree"),
    "attach to a tun without owner": Operation(
        lambda self: os.close(self.attach("t-free")), why="tuntap.rst does not say whose a device without owner is"),
    "change the owner of its tun": Operation(lambda self: self.after_attaching(_SETOWNER, MINE), why=_UNSAID),
    "change the group of its tun": Operation(lambda self: self.after_attaching(_SETGROUP, MINE), why=_UNSAID),
    "make its tun persistent": Operation(lambda self: self.after_attaching(_SETPERSIST, 1), why=_UNSAID),
    "delete its tun": Operation(lambda self: self.after_attaching(_SETPERSIST, 0), why=_UNSAID),
    "create a veth": Operation(lambda self: self.ask(veth("v-new", "p-new"))),
    "delete a veth": Operation(lambda self: self.ask(link("v-delete", kind=DELETE, how=_SET))),
    "rename a device": Operation(lambda self: self.ask(link("v-renamed", index=self.index("v-rename"), how=_SET))),
    "move a device to another namespace": Operation(Operator.move, needs="the other namespace"),
    "set a device up": Operation(lambda self: self.set(flags=_UP, change=_UP)),
    "set its MTU": Operation(lambda self: self.set(attribute(_MTU, struct.pack("=I", 1400)))),
    "set its MAC address": Operation(lambda self: self.set(attribute(_ADDRESS, bytes.fromhex("020000000001")))),
    "set its alias": Operation(lambda self: self.set(attribute(_ALIAS, b"alias\0"))),
    "set it promiscuous": Operation(lambda self: self.set(flags=_PROMISC, change=_PROMISC)),
    "add an address": Operation(lambda self: self.ask(routes.address(self.index("v-set"), "198.18.1.1/24"))),
    "delete an address": Operation(lambda self: self.ask(routes.address(self.index("v-set"), "198.18.9.1/24", delete=True))),
    "add an IPv6 address": Operation(lambda self: self.ask(routes.address(self.index("v-set"), "2001:db8:1::1/64"))),
    "add a route": Operation(lambda self: self.ask(routes.route("add", "198.18.2.0/24", dev=1))),
    "add an IPv6 route": Operation(lambda self: self.ask(routes.route("add", "2001:db8:2::/64", dev=1))),
    "add a rule": Operation(lambda self: self.ask(routes.rule(_V4, priority=9, table=100))),
    "add a neighbour": Operation(lambda self: self.ask(message(
        _NEWNEIGH, _ADD, struct.pack("=BxxxiHBB", _V4, self.index("v-set"), 0x80, 0, 1) + attribute(1, socket.inet_aton("198.18.9.9"))
        + attribute(2, bytes.fromhex("020000000009"))))),
    "add a qdisc": Operation(lambda self: self.ask(message(
        _NEWQDISC, _ADD, struct.pack("=BxxxiIII", 0, self.index("v-set"), 0x10000, 0xFFFFFFFF, 0) + attribute(1, b"pfifo\0")))),
    "SIOCSIFMTU": Operation(lambda self: self.ioctl(0x8922, struct.pack("=i", 1300))),
    "SIOCSIFFLAGS": Operation(lambda self: self.ioctl(0x8914, struct.pack("=h", _UP))),
    "SIOCSIFHWADDR": Operation(lambda self: self.ioctl(0x8924, struct.pack("=H6s", 1, bytes.fromhex("020000000002")))),
    "SIOCSIFADDR": Operation(lambda self: self.ioctl(0x8916, struct.pack("=HH4s", _V4, 0, socket.inet_aton("198.18.3.1")))),
    "SIOCGIFMTU": Operation(lambda self: self.ioctl(0x8921, b""), needs=""),
    "SIOCGIFFLAGS": Operation(lambda self: self.ioctl(0x8913, b""), needs=""),
    "list routes": Operation(Operator.list_routes, needs=""),
    "hear of links": Operation(Operator.listen, needs=""),
    "open a raw socket": Operation(lambda self: self.open(_V4, socket.SOCK_RAW, socket.IPPROTO_ICMP), needs="CAP_NET_RAW"),
    "open a raw IPv6 socket": Operation(lambda self: self.open(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
                                        needs="CAP_NET_RAW"),
    "open a packet socket": Operation(lambda self: self.open(socket.AF_PACKET, socket.SOCK_RAW, 0), needs="CAP_NET_RAW"),
    "open a ping socket, no group may": Operation(lambda self: self.open(_V4, socket.SOCK_DGRAM, socket.IPPROTO_ICMP), needs="nobody",
                                                  refusal="EACCES"),
    "bind port 1023": Operation(lambda self: self.bind(1023), needs="CAP_NET_BIND_SERVICE", refusal="EACCES"),
    "bind port 1024": Operation(lambda self: self.bind(1024), needs=""),
    "SO_MARK": Operation(lambda self: self.option(socket.SOL_SOCKET, socket.SO_MARK, 1), since=_LIMIT),
    "SO_PRIORITY 7": Operation(lambda self: self.option(socket.SOL_SOCKET, _SO_PRIORITY, 7),
                               since="capabilities(7) names CAP_NET_ADMIN; since Linux 5.17 the kernel takes CAP_NET_RAW too"),
    "SO_PRIORITY 6": Operation(lambda self: self.option(socket.SOL_SOCKET, _SO_PRIORITY, 6), needs=""),
    "SO_RCVBUFFORCE": Operation(lambda self: self.option(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20), needs=_FIRST),
    "SO_SNDBUFFORCE": Operation(lambda self: self.option(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 20), needs=_FIRST),
    "SO_DEBUG": Operation(lambda self: self.option(socket.SOL_SOCKET, socket.SO_DEBUG, 1), needs=_FIRST, refusal="EACCES"),
    "SO_BINDTODEVICE": Operation(lambda self: self.option(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v-set"), needs=""),
    "IP_TRANSPARENT": Operation(lambda self: self.option(socket.IPPROTO_IP, _IP_TRANSPARENT, 1), needs="CAP_NET_ADMIN or CAP_NET_RAW"),
    "TCP_REPAIR": Operation(lambda self: self.option(socket.IPPROTO_TCP, _TCP_REPAIR, 1)),
    "write a sysctl": Operation(
        lambda self: write("/proc/sys/net/ipv4/ip_forward", "1"), refusal="EACCES",
        why="capabilities(7) does not say who may write the sysctls of a network namespace"),
    "make a network namespace": Operation(lambda self: self.in_child(lambda: libc.unshare(libc.CLONE_NEWNET)), needs="unshare"),
    "join another network namespace": Operation(
        lambda self: self.in_child(lambda: libc.setns(self.other, libc.CLONE_NEWNET)), needs="joining"),
    "make a user namespace": Operation(lambda self: self.in_child(lambda: libc.unshare(libc.CLONE_NEWUSER)), needs=""),
}
