"""What a tun device hands to a program that offers to finish checksums and to cut segments: nothing that was not offered.

Source: include/uapi/linux/if_tun.h ("Features for GSO (TUNSETOFFLOAD)"); the virtio specification, 5.1.6; udp(7), UDP_SEGMENT.
"""

import fcntl
import os
import socket
import struct
from collections import Counter

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import LAN
from netns import MissingFeature
from netns.attempt import errno_of
from netns.hosts.tun import features
from netns.packets.icmp import checksum

pytestmark = pytest.mark.topology(LAN)

V4, V6 = socket.AF_INET, socket.AF_INET6
SETIFF, SETOFFLOAD = 0x400454CA, 0x400454D0
TUN, NO_PI, VNET_HDR = 0x1, 0x1000, 0x4000
CSUM, TSO4, TSO6, ECN, USO4, USO6 = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40
OFFERS = {
    "nothing": 0, "CSUM": CSUM, "CSUM, TSO4": CSUM | TSO4, "CSUM, TSO6": CSUM | TSO6, "CSUM, TSO4, TSO6": CSUM | TSO4 | TSO6,
    "CSUM, TSO4, TSO6, ECN": CSUM | TSO4 | TSO6 | ECN, "CSUM, USO4, USO6": CSUM | USO4 | USO6,
    "everything": CSUM | TSO4 | TSO6 | ECN | USO4 | USO6, "nothing any more": 0,
}
UDP_SEGMENT, SEGMENT = 103, 1000
HERE, THERE = {V4: "203.0.113.1", V6: "2001:db8:9::1"}, {V4: "203.0.113.9", V6: "2001:db8:9::9"}
HEADER, NEEDS_CSUM, GSO_UDP = struct.Struct("=BBHHHH"), 1, 5
# By what is sent: family, bytes, and whether it is to be cut into segments.
SENT = {
    f"{size} bytes over {name}": (family, size, False) for name, family in (("IPv4", V4), ("IPv6", V6)) for size in (0, 1, 2, 1000, 1400)
}
SENT.update({f"{size} bytes in segments over {name}": (family, size, True) for name, family in (("IPv4", V4), ("IPv6", V6))
             for size in (1000, 1001, 2000, 2999)})


def packets(sizes, headers, *words):
    counted = Counter(sizes)
    listed = ", ".join(f"{count} of {headers + size} bytes" for size, count in sorted(counted.items(), reverse=True))
    return "; ".join([listed, *words])


def cell(offer, family, size, cut):
    headers = 28 if family == V4 else 48
    sizes = [min(SEGMENT, size - at) for at in range(0, size, SEGMENT)] if cut else [size]
    done = packets(sizes, headers, "checksums done")
    if not offer & CSUM:
        return done
    allowed = [done, packets(sizes, headers, "checksums to be done")]
    if len(sizes) > 1 and offer & USO4:
        allowed.append(packets([size], headers, "checksums to be done", f"segments of {SEGMENT}"))
    return OneOf(tuple(allowed), "if_tun.h: the program can take it, and the kernel need not use it")


OFFLOADS = Table("devices.tun-offloads", "offered", "sent", "if_tun.h: what is not offered is not used",
                 {name: {sent: cell(offer, *what) for sent, what in SENT.items()} for name, offer in OFFERS.items()})


def open_device(host, offer, before):
    """A tun whose program offers this, and offered `before` at first."""
    features(host)                          # the device node appears with the driver
    with host.entered():
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(file, SETIFF, struct.pack("=16sH22x", b"tun0", TUN | NO_PI | VNET_HDR))
    for each in (before, offer):
        refused = errno_of(fcntl.ioctl, file, SETOFFLOAD, each)
        if refused:
            os.close(file)
            raise MissingFeature(f"the kernel's tun driver does not take the offer {each:#x}: {refused}")
    host.pin({"net.ipv6.conf.tun0.addr_gen_mode": 1, "net.ipv6.conf.tun0.router_solicitations": 0})
    host.run(["ip", "-batch", "-"], stdin=f"link set tun0 up\naddress add {HERE[V4]}/24 dev tun0\n"
                                          f"address add {HERE[V6]}/64 dev tun0 nodad\n")
    host.await_address(HERE[V6])
    return file


def checksum_of(family, packet):
    """The sum over pseudo-header, UDP header and data: 0xffff if the checksum is right (RFC 768, RFC 8200, 8.1)."""
    addresses, upper = (packet[12:20], packet[20:]) if family == V4 else (packet[8:40], packet[40:])
    return checksum(addresses + struct.pack("!HH", socket.IPPROTO_UDP, len(upper)) + upper) ^ 0xFFFF


def handed_over(file, family):
    """All datagrams of the family that the program gets, in words."""
    sizes, words = [], set()
    while True:
        data = errno_of(os.read, file, 65536)
        if isinstance(data, str):
            break
        flags, gso, _length, size, _start, _offset = HEADER.unpack_from(data)
        packet = data[HEADER.size:]
        if packet[9 if family == V4 else 6] != 17 or packet[0] >> 4 != (4 if family == V4 else 6):
            continue
        sizes.append(len(packet))
        if flags & NEEDS_CSUM:
            words.add("checksums to be done")
        else:
            words.add("checksums done" if checksum_of(family, packet) == 0xFFFF else "wrong checksums")
        if gso:
            words.add(f"segments of {size}" if gso == GSO_UDP else f"GSO {gso}")
    return packets(sizes, 0, *sorted(words)) if sizes else "nothing"


@pytest.mark.table(OFFLOADS)
@pytest.mark.parametrize("row", OFFLOADS.rows)
def test_program_gets_no_unfinished_packet_that_it_did_not_offer_to_finish(net, row, table):
    """A cell is the sizes of what was read, whether checksums are right, and any segmentation that is left. "nothing any more" follows
    an offer of checksums."""
    host = net["client"]
    file = open_device(host, OFFERS[row], CSUM if row == "nothing any more" else 0)
    try:
        for column in table:
            family, size, cut = SENT[column]
            with host.socket(family, socket.SOCK_DGRAM) as sock:
                if cut:
                    sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SEGMENT)
                sent = errno_of(sock.sendto, b"x" * size, (THERE[family], 4000))
            table.saw(sent if isinstance(sent, str) else handed_over(file, family))
    finally:
        os.close(file)
