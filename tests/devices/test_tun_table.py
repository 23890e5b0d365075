"""Packets through tun and tap devices with each frame format: what a program reads of a packet, and what becomes of what it writes.

Source: Documentation/networking/tuntap.rst (3.2, frame format), include/uapi/linux/if_tun.h; the virtio specification, 5.1.6, for the
header of IFF_VNET_HDR.
"""

import fcntl
import os
import select
import socket
import struct
from dataclasses import dataclass

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from fixtures.table import LeftOut, Measured, Must, Table
from fixtures.topologies import LAN
from netns import ExpectationFailed, MissingFeature, eventually
from netns.attempt import errno_of
from netns.hosts.tun import Flags, features
from netns.netlink import rtnl
from netns.packets.icmp import checksum

pytestmark = pytest.mark.topology(LAN)

V4, V6 = socket.AF_INET, socket.AF_INET6
SETIFF, SETVNETHDRSZ = 0x400454CA, 0x400454D8
NO_PI, VNET_HDR = 0x1000, 0x4000
NEEDS_CSUM, DATA_VALID = 1, 2
HEADER = struct.Struct("=BBHHHH")           # virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
HERE, THERE = {V4: "203.0.113.1", V6: "2001:db8:9::1"}, {V4: "203.0.113.9", V6: "2001:db8:9::9"}
ETHERTYPES = {V4: 0x0800, V6: 0x86DD}
HEADERS = {V4: 28, V6: 48}                  # bytes of IP and UDP
MAC, OTHER_MAC, NOBODY = "02:00:00:00:00:01", "02:00:00:00:00:09", "02:00:00:00:00:77"
PORT, SIZE = 5000, 100
FENCE = b"fence"


@dataclass(frozen=True)
class Format:
    """A device: `tap` has Ethernet headers, `pi` a struct tun_pi before each frame, `vnet` a virtio_net_hdr of so many bytes."""

    tap: bool = False
    pi: bool = False
    vnet: int = 0
    more: Flags = Flags(0)

    @property
    def flags(self) -> int:
        return (Flags.TAP if self.tap else Flags.TUN) | (0 if self.pi else NO_PI) | (VNET_HDR if self.vnet else 0) | self.more


def name_of(tap, pi, vnet, more=""):
    return " ".join(filter(None, ("tap" if tap else "tun", "with PI" if pi else "", f"with a vnet header of {vnet}" if vnet else "", more)))


FORMATS = {name_of(tap, pi, vnet): Format(tap, pi, vnet) for tap in (False, True) for pi in (False, True) for vnet in (0, 10, 12)}
FORMATS.update({name_of(tap, False, vnet, more): Format(tap, False, vnet, flag) for tap in (False, True) for vnet in (0, 10)
                for more, flag in (("with queues", Flags.MULTI_QUEUE), ("with NAPI", Flags.NAPI))})
UNSAID = "tuntap.rst does not say what becomes of it"


def read_frame(form, family, size=SIZE):
    """What a read gives of a datagram of `size` bytes."""
    words = [f"PI 0 {ETHERTYPES[family]:#06x}"] if form.pi else []
    words += ["vnet 0 0"] if form.vnet else []
    return ", ".join([*words, f"{'frame' if form.tap else 'packet'} of {HEADERS[family] + size + (14 if form.tap else 0)} bytes"])


def cells(form):
    """What each read and write must show."""
    vnet = LeftOut("there is no vnet header") if not form.vnet else None
    pi, tap = None if form.pi else LeftOut("there is no PI"), None if form.tap else LeftOut("there is no Ethernet header")
    return {
        "read IPv4": read_frame(form, V4), "read IPv6": read_frame(form, V6),
        "read two packets": "in order", "read nothing": Must("EAGAIN", "read(2), O_NONBLOCK"),
        "poll": Must("not readable, then readable", "poll(2)"),
        "read with room for half": Measured("if_tun.h has TUN_PKT_STRIP, and does not say who sets it"),
        "write IPv4": "delivered", "write IPv6": "delivered", "write 1400 bytes": "delivered",
        "write a wrong checksum": Must("discarded", "RFC 1122 (4.1.3.4)"),
        "write a wrong IPv4 length": Must("discarded", "RFC 1122 (3.2.1.2): not shorter than its total length"),
        "write nothing": Measured(UNSAID), "write one byte": Measured(UNSAID), "write headers only": Measured(UNSAID),
        "write IP version 5": Must("discarded", "RFC 1122 (3.2.1.1)") if form.pi or form.tap else Measured(UNSAID),
        "write PI of another protocol": pi or Measured(UNSAID),
        "write ARP request": tap or Must("answered", "RFC 826"),
        "write to another MAC address": tap or Must("discarded", "packet of another host"),
        "write a frame of 13 bytes": tap or Measured(UNSAID),
        "write a checksum to be done": vnet or Must("delivered", "virtio 5.1.6.2: NEEDS_CSUM"),
        "write a checksum said to be valid": vnet or Measured("virtio 5.1.6.2.1 forbids to send it"),
        "write csum_start beyond the packet": vnet or Measured(UNSAID),
        "write an unknown gso_type": vnet or Measured(UNSAID),
        "write gso_size 0": vnet or Measured(UNSAID),
        "write hdr_len beyond the packet": vnet or Measured(UNSAID),
        # Last: IPv6 addresses and neighbours do not survive it.
        "read while down": Measured(UNSAID), "write while down": Measured(UNSAID),
    }


FRAMES = Table("devices.tun", "device", "read or write", "tuntap.rst (3.2), if_tun.h; virtio 5.1.6",
               {name: cells(form) for name, form in FORMATS.items()})


class Device:
    """The device of a row, with its program and a socket of the host."""

    def __init__(self, host, form):
        self.host, self.form = host, form
        if form.more & ~features(host):
            raise MissingFeature(f"the kernel's tun driver does not support {form.more.name}")
        with host.entered():
            self.file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(self.file, SETIFF, struct.pack("=16sH22x", b"tun0", form.flags))
        if form.vnet:
            fcntl.ioctl(self.file, SETVNETHDRSZ, struct.pack("=i", form.vnet))
        with host.entered():
            self.index = socket.if_nametoindex("tun0")
        host.pin({"net.ipv6.conf.tun0.addr_gen_mode": 1, "net.ipv6.conf.tun0.router_solicitations": 0})
        host.run(["ip", "-batch", "-"], stdin=self.setup())
        host.await_address(HERE[V6])
        self.inbox = {family: host.socket(family, socket.SOCK_DGRAM) for family in (V4, V6)}
        for family, sock in self.inbox.items():
            sock.bind((HERE[family], PORT))
            sock.settimeout(5)

    def setup(self):
        lines = [f"link set tun0 address {MAC}"] if self.form.tap else []
        lines += ["link set tun0 up", f"address add {HERE[V4]}/24 dev tun0", f"address add {HERE[V6]}/64 dev tun0 nodad"]
        if self.form.tap:
            lines += [f"neighbour add {address} lladdr {OTHER_MAC} dev tun0" for address in THERE.values()]
        return "\n".join(lines) + "\n"

    def up(self, up):
        rtnl.request(self.host.namespace, [rtnl.link_state(self.index, up)])

    def send(self, family, size=SIZE):
        self.inbox[family].sendto(bytes(size), (THERE[family], PORT))

    def read(self, size=65536):
        """One frame that is no group's, in words; the errno if there is none."""
        while True:
            data = errno_of(os.read, self.file, size)
            if isinstance(data, str):
                return data
            words, packet = [], data
            if self.form.pi:
                words.append("PI {} {:#06x}".format(*struct.unpack("!HH", packet[:4])))
                packet = packet[4:]
            if self.form.vnet:
                words.append("vnet {} {}".format(*HEADER.unpack_from(packet)[:2]))
                packet = packet[self.form.vnet:]
            ip = packet[14:] if self.form.tap else packet
            if ip[:1] == b"\x60" and ip[24:25] == b"\xff":
                continue                    # an MLD report
            self.last = ip
            return ", ".join([*words, f"{'frame' if self.form.tap else 'packet'} of {len(packet)} bytes"])

    def frame(self, packet, kind=0x0800, vnet=(0, 0, 0, 0, 0, 0), to=MAC, ether=True):
        """The packet with all that the device wants before it."""
        ethernet = bytes(Ether(src=OTHER_MAC, dst=to, type=kind)) if self.form.tap and ether else b""
        header = HEADER.pack(*vnet).ljust(self.form.vnet, b"\0") if self.form.vnet else b""
        return (struct.pack("!HH", 0, kind) if self.form.pi else b"") + header + ethernet + packet

    def write(self, frame):
        """The errno of a write, "short" for less than all, "" for all."""
        written = errno_of(os.write, self.file, frame)
        return written if isinstance(written, str) else "" if written == len(frame) else "short"

    def fate(self, frame, family=V4):
        """What became of it, once a datagram that was written after it has arrived."""
        error = self.write(frame)
        if error:
            return error
        self.write(self.frame(datagram(family, FENCE), ETHERTYPES[family]))
        arrived = []
        while FENCE not in arrived:
            arrived.append(self.inbox[family].recv(2000))
        return "delivered" if len(arrived) > 1 else "discarded"


def datagram(family, payload, **fields):
    """A datagram from the other end; `fields` are its UDP header's."""
    ip = IP(src=THERE[V4], dst=HERE[V4]) if family == V4 else IPv6(src=THERE[V6], dst=HERE[V6])
    return bytes(ip / UDP(sport=PORT, dport=PORT, **fields) / payload)


def pseudo_checksum(packet):
    """RFC 768, without the sum's complement and without header and data: what NEEDS_CSUM leaves to be done."""
    return checksum(packet[12:20] + struct.pack("!HH", socket.IPPROTO_UDP, len(packet) - 20)) ^ 0xFFFF


def ask_for_mac(device):
    request = bytes(ARP(op=1, hwsrc=OTHER_MAC, psrc=THERE[V4], pdst=HERE[V4]))
    device.write(device.frame(request, 0x0806, to="ff:ff:ff:ff:ff:ff"))
    try:
        eventually("ARP reply", lambda: device.read() and device.last[6:8] == b"\0\2", within=5)
    except ExpectationFailed:
        return "no answer"
    return "answered"


def reads(device, column):
    if column in ("read IPv4", "read IPv6"):
        device.send(V4 if column == "read IPv4" else V6)
        return device.read()
    if column == "read nothing":
        return device.read()
    if column == "read two packets":
        for size in (10, 20):
            device.send(V4, size)
        sizes = [device.read().split()[-2] for _ in range(2)]
        return "in order" if int(sizes[1]) - int(sizes[0]) == 10 else f"sizes {' '.join(sizes)}"
    if column == "poll":
        device.read()
        before = readable(device.file)
        device.send(V4)
        after = readable(device.file)
        device.read()
        return f"{before}, then {after}"
    if column == "read with room for half":
        device.send(V4)
        return device.read(64)
    device.send(V4)
    device.up(False)
    return device.read()


def readable(file):
    return "readable" if select.select([file], [], [], 0)[0] else "not readable"


def writes(device, column):
    whole = datagram(V4, b"x" * 40)
    left = datagram(V4, b"x" * 40, chksum=pseudo_checksum(whole))
    frames = {
        "write IPv4": lambda: device.frame(whole),
        "write 1400 bytes": lambda: device.frame(datagram(V4, bytes(1400))),
        "write a wrong checksum": lambda: device.frame(datagram(V4, b"x" * 40, chksum=0x1234)),
        "write a wrong IPv4 length": lambda: device.frame(whole[:-1]),
        "write nothing": lambda: b"", "write one byte": lambda: b"\x45",
        "write headers only": lambda: device.frame(b""),
        "write IP version 5": lambda: device.frame(b"\x55" + whole[1:]),
        "write PI of another protocol": lambda: struct.pack("!HH", 0, 0x86DD) + device.frame(whole)[4:],
        "write to another MAC address": lambda: device.frame(whole, to=NOBODY),
        "write a frame of 13 bytes": lambda: device.frame(bytes(13), ether=False),
        "write a checksum to be done": lambda: device.frame(left, vnet=(NEEDS_CSUM, 0, 0, 0, start + 20, 6)),
        "write a checksum said to be valid": lambda: device.frame(left, vnet=(DATA_VALID, 0, 0, 0, 0, 0)),
        "write csum_start beyond the packet": lambda: device.frame(left, vnet=(NEEDS_CSUM, 0, 0, 0, 2000, 6)),
        "write an unknown gso_type": lambda: device.frame(whole, vnet=(0, 9, 28, 20, 0, 0)),
        "write gso_size 0": lambda: device.frame(left, vnet=(NEEDS_CSUM, 3, 28, 0, start + 20, 6)),
        "write hdr_len beyond the packet": lambda: device.frame(whole, vnet=(0, 0, 2000, 0, 0, 0)),
    }
    start = 14 if device.form.tap else 0
    if column == "write IPv6":
        return device.fate(device.frame(datagram(V6, b"x"), 0x86DD), V6)
    if column == "write ARP request":
        return ask_for_mac(device)
    if column == "write while down":
        return device.write(device.frame(whole)) or "accepted"
    return device.fate(frames[column]())


@pytest.mark.table(FRAMES)
@pytest.mark.parametrize("row", FRAMES.rows)
def test_program_reads_and_writes_packets_in_the_devices_format(net, row, table):
    """A cell is the frame that was read, or what became of one that was written, once a later one has arrived."""
    host = net["client"]
    device = Device(host, FORMATS[row])
    try:
        for column in table:
            table.saw((reads if column.startswith(("read", "poll")) else writes)(device, column))
    finally:
        os.close(device.file)
