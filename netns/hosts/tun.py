"""tun and tap devices: interfaces that hand packets to a program, which may read slowly or not at all.

Source: Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h, drivers/net/tun.c.
"""

import fcntl
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntFlag
from ipaddress import ip_interface

from netns.errors import CommandError, MissingFeature, MissingOnHost, missing_feature
from netns.hosts.host import Host
from netns.named import NamedList
from netns.netlink import rtnl
from netns.observe import procnet

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNGETFEATURES = 0x800454CF
_IFREQ = struct.Struct("=16sH22x")
_LONGEST_PACKET = 65536


class Flags(IntFlag):
    """Flags of TUNSETIFF. IFF_NO_PI is always added: packets are read without a leading header."""

    TUN = 0x0001
    TAP = 0x0002
    NAPI = 0x0010
    BACKPRESSURE = 0x0080
    MULTI_QUEUE = 0x0100
    NO_PI = 0x1000


class Tun:
    """A tun or tap device of a host; `queues` are the non-blocking descriptors that its packets are read from."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.index = 0
        self.queues: list[int] = []

    def read(self, queue: int = 0) -> bytes | None:
        """The oldest packet, on a tap with its Ethernet header; None if there is none."""
        try:
            return os.read(self.queues[queue], _LONGEST_PACKET)
        except BlockingIOError:
            return None

    def drain(self, queue: int = 0) -> list[bytes]:
        """All packets waiting to be read, oldest first."""
        return list(iter(lambda: self.read(queue), None))

    def dropped(self) -> int:
        """Packets dropped because the device's ring was full or had no reader: the interface's tx_dropped."""
        return transmit_statistics(self.host, self.name)[1]

    def ring(self) -> int:
        """Packets that one queue of the device holds for its reader: the interface's tx_queue_len."""
        return self._link()["txqlen"]

    def operstate(self) -> str:
        """The RFC 2863 state in `ip link`: "DOWN" once linkwatch_do_dev() has noticed the lost carrier."""
        return self._link()["operstate"]

    def _link(self) -> dict:
        links = json.loads(self.host.run(["ip", "-j", "link", "show", self.name]))
        return NamedList(f"interfaces {self.name} of {self.host.role}", links).only()

    def attach(self, flags: Flags = Flags.TUN) -> None:
        """Open another descriptor: a reader of a persistent device, or another queue. Raises OSError."""
        descriptor = _open(self.host)
        self.queues.append(descriptor)
        # The device is created in the namespace where the descriptor was opened.
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(self.name.encode(), flags | Flags.NO_PI))

    def set_persistent(self, persistent: bool) -> None:
        """Set whether the interface outlives its last descriptor."""
        fcntl.ioctl(self.queues[0], _TUNSETPERSIST, int(persistent))

    def close(self) -> None:
        """Close all descriptors, as if the program that reads them had exited."""
        while self.queues:
            os.close(self.queues.pop())


@contextmanager
def tun(
    host: Host, name: str, flags: Flags = Flags.TUN, queues: int = 1, addresses: Sequence[str] = ("203.0.113.1/24",)
) -> Iterator[Tun]:
    """Within the block the device is up and has these addresses; nothing reads from it.

    It sends nothing by itself except the MLD reports that an IPv6 address causes. Raises MissingFeature if this machine
    lacks the device or the flag, or denies it to this user.
    """
    missing = flags & ~features(host)
    if missing:
        raise MissingFeature(f"the kernel's tun driver does not support {' '.join(flag.name for flag in Flags if flag & missing)}")
    host.pin({"net.ipv6.conf.default.addr_gen_mode": 1, "net.ipv6.conf.default.router_solicitations": 0})
    device = Tun(host, name)
    try:
        for _ in range(queues):
            device.attach(flags)
        with host.entered():
            device.index = socket.if_nametoindex(name)
        if not any(":" in address for address in addresses):
            host.pin({f"net.ipv6.conf.{name}.disable_ipv6": 1})
        rtnl.request(host.namespace, [
            *(rtnl.address(device.index, ip_interface(address)) for address in addresses),
            rtnl.link_state(device.index, up=True),
        ])
        yield device
    finally:
        device.close()


def features(host: Host) -> Flags:
    """The flags that the kernel's tun driver supports. Raises MissingFeature."""
    descriptor = _open(host)
    try:
        (bits,) = struct.unpack("=I", fcntl.ioctl(descriptor, _TUNGETFEATURES, bytes(4)))
    finally:
        os.close(descriptor)
    return Flags(bits)


def transmit_statistics(host: Host, interface: str) -> tuple[int, int]:
    """Packets that an interface has sent and dropped, from /proc/net/dev; a tun packet counts as sent when it is read."""
    with host.entered():
        lines = procnet.read("dev").decode().splitlines()
    named = (line.split(":") for line in lines)
    columns = NamedList(f"lines of {interface} in /proc/net/dev of {host.role}",
                    (line[1].split() for line in named if line[0].strip() == interface)).only()
    return int(columns[9]), int(columns[11])


def _open(host: Host) -> int:
    with host.entered():
        try:
            return os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            # The device node appears with the driver; only udev would create it earlier.
            try:
                host.run(["modprobe", "tun"])
                return os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            except (CommandError, OSError) as error:
                raise missing_feature(f"no {_DEVICE}", error) from error
        except OSError as error:
            raise MissingOnHost(f"cannot open {_DEVICE}: {error.strerror}") from error
