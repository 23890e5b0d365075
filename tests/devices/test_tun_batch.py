"""A program that writes many packets at once into a tun device: one large packet with its segmentation left to the kernel. Source:
include/uapi/linux/virtio_net.h; the virtio specification, 5.1.6."""

import fcntl
import os
import socket
import struct

import pytest

from fixtures.topologies import LAN
from netns.hosts import offload
from netns.hosts.tun import features
from netns.packets.icmp import checksum
from netns.packets.segment import with_ip_header
from netns.traffic.closing import fence

V4 = socket.AF_INET
SETIFF, TUN, NO_PI, VNET_HDR = 0x400454CA, 0x1, 0x1000, 0x4000
NEEDS_CSUM, GSO_TCPV4, GSO_TCPV6 = 1, 1, 4
SEGMENT, TCP_HEADER, CHECKSUM_AT = 1000, 20, 16
BEYOND = {V4: "203.0.113.9", socket.AF_INET6: "2001:db8:9::9"}


@pytest.mark.topology(LAN)
@pytest.mark.parametrize("size", [1001, 2000, 2500, 20_001])
def test_batch_of_segments_may_end_with_a_shorter_one(net, family, size):
    """gso_size is the most of a segment, and the last one has the rest: all are forwarded, in order, with right checksums. Kernels with
    "net: missing check virtio" and without its fix refuse short tails with EINVAL (tailscale #13041)."""
    client, server = net.nodes("client", "server")
    offload.segment_in_software(client)
    client.pin({"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
    features(client)                        # the device node appears with the driver
    with client.entered():
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, SETIFF, struct.pack("=16sH22x", b"tun0", TUN | NO_PI | VNET_HDR))
        client.pin({"net.ipv6.conf.tun0.addr_gen_mode": 1, "net.ipv6.conf.tun0.router_solicitations": 0})
        client.run(["ip", "link", "set", "tun0", "up"])
        source, destination = BEYOND[family], server.address(family)
        segment = struct.pack("!HHIIBBHHH", 4000, 9, 1, 1, TCP_HEADER // 4 << 4, 0x10, 1000, 0, 0) + bytes(size)
        packed = b"".join(socket.inet_pton(family, address) for address in (source, destination))
        pseudo = checksum(packed + struct.pack("!II", len(segment), socket.IPPROTO_TCP)) ^ 0xFFFF
        segment = segment[:CHECKSUM_AT] + struct.pack("!H", pseudo) + segment[CHECKSUM_AT + 2:]
        packet = with_ip_header(family, source, destination, socket.IPPROTO_TCP, segment)
        start = len(packet) - len(segment)
        if family == V4:
            packet = packet[:10] + struct.pack("!H", checksum(packet[:start])) + packet[12:]
        kind = GSO_TCPV4 if family == V4 else GSO_TCPV6
        header = struct.pack("=BBHHHH", NEEDS_CSUM, kind, start + TCP_HEADER, SEGMENT, start, CHECKSUM_AT)
        with server.capture("tcp") as packets:
            assert os.write(file, header + packet) == len(header) + len(packet)
            fence(client, server, destination)
    finally:
        os.close(file)

    arrived = packets.received()
    assert [(each.seq - 1, each.length) for each in arrived] == [(at, min(SEGMENT, size - at)) for at in range(0, size, SEGMENT)]
    assert server.counter("Tcp.InCsumErrors") == 0
