"""Raw sockets as a routing daemon uses them: OSPF Hellos to a multicast group, on many interfaces through one socket."""

import fcntl
import os
import select
import socket
import struct
from typing import NamedTuple

from netns.hosts.host import Host
from netns.observe import procnet

OSPF = 89
_SIOCOUTQ = 0x5411
_ALL_SPF_ROUTERS = {socket.AF_INET: ("224.0.0.5", 0), socket.AF_INET6: ("ff02::5", 0)}
# RFC 2328, A.3.2: version 2, type 1, HelloInterval 10 s, RouterDeadInterval 40 s; likewise RFC 5340, A.3.2.
HELLO = {
    socket.AF_INET: bytes.fromhex(
        "0201002c c0000201 00000000 0000 0000 0000000000000000"
        "ffffff00 000a 02 01 00000028 00000000 00000000"
    ),
    socket.AF_INET6: bytes.fromhex(
        "03010024 c0000201 00000000 0000 00 00"
        "00000001 01 000013 000a 0028 00000000 00000000"
    ),
}


class HelloSender:
    """A non-blocking raw socket that sends OSPF Hellos to all OSPF routers (224.0.0.5, ff02::5).

    `packet` is the Hello, `taken` the number of Hellos that the kernel has accepted.
    """

    def __init__(self, host: Host, family: socket.AddressFamily, packet: bytes | None = None) -> None:
        self.family = family
        self.packet = HELLO[family] if packet is None else packet
        self.taken = 0
        self.socket = host.socket(family, socket.SOCK_RAW, OSPF)
        self.socket.setblocking(False)
        self._group = _ALL_SPF_ROUTERS[family]
        self._option = (
            (socket.IPPROTO_IP, socket.IP_MULTICAST_IF) if family == socket.AF_INET
            else (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF)
        )
        self._choices: dict[int, bytes] = {}

    def send(self, interface: int) -> None:
        """Send a Hello on the interface with this index. Raises OSError."""
        # The packet and the option for each interface are built once: a test may send tens of thousands.
        choice = self._choices.get(interface) or self._choices.setdefault(interface, self._choice(interface))
        self.socket.setsockopt(*self._option, choice)
        self.socket.sendto(self.packet, self._group)
        self.taken += 1

    def _choice(self, interface: int) -> bytes:
        return struct.pack("=8xi" if self.family == socket.AF_INET else "=i", interface)

    def send_many(self, interface: int, count: int) -> None:
        for _ in range(count):
            self.send(interface)


class HelloReceiver:
    """A neighbour that has joined the group on its interface to `peer`."""

    def __init__(self, host: Host, family: socket.AddressFamily, peer: str) -> None:
        self.host = host
        self.socket = host.socket(family, socket.SOCK_RAW, OSPF)
        self.socket.setblocking(False)
        # In a long test most packets overflow the buffer, and the kernel counts them instead of this process.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        group, index = socket.inet_pton(family, _ALL_SPF_ROUTERS[family][0]), host.interfaces[peer].index
        if family == socket.AF_INET:
            request = struct.pack("=4s4xi", group, index)
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        else:
            request = struct.pack("=16si", group, index)
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        self._read = 0

    def arrived(self) -> int:
        """Hellos that have reached this socket so far, including those dropped for lack of buffer space."""
        try:
            while self.socket.recv(2048):
                self._read += 1
        except BlockingIOError:
            return self._read + row(self.host, os.fstat(self.socket.fileno()).st_ino).drops


def outq(sender: socket.socket) -> int:
    """Bytes of send buffer in use, including overhead: SIOCOUTQ. Source: raw_ioctl() in net/ipv4/raw.c."""
    return struct.unpack("=i", fcntl.ioctl(sender, _SIOCOUTQ, bytes(4)))[0]


class Row(NamedTuple):
    """A raw socket in /proc/net/raw or raw6: bytes of send buffer in use, and packets dropped for lack of receive buffer.
    Source: proc_net(5)."""

    tx_queue: int
    drops: int


def row(host: Host, inode: int) -> Row | None:
    """The raw socket with this inode (os.fstat() of its descriptor) as listed in /proc; None if it is not there."""
    with host.entered():
        for table in ("raw", "raw6"):
            for columns in procnet.rows(table):
                if int(columns[9]) == inode:
                    return Row(tx_queue=int(columns[4].split(":")[0], 16), drops=int(columns[-1]))
    return None


def tx_queue(host: Host, sender: socket.socket) -> int:
    """outq() as shown in /proc/net/raw and raw6."""
    return row(host, os.fstat(sender.fileno()).st_ino).tx_queue


def writable(sender: socket.socket) -> bool:
    """Whether poll(2) reports room in the send buffer now."""
    poll = select.poll()
    poll.register(sender, select.POLLOUT)
    return bool(poll.poll(0))
