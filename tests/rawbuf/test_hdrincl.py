"""Raw sockets that supply the IP header: IP_HDRINCL (raw(7)), IPV6_HDRINCL (since 4.5)."""

import socket
import struct

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, stopwatch, timer_slack
from netns.attempt import errno_name, refused
from netns.hosts.qdisc import tbf
from netns.hosts.tun import tun
from netns.packets.raw import HELLO, OSPF, HelloSender, outq, writable
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(LAN)

IPV6_HDRINCL = 36
SNDBUF = 16384
# The most that one packet is charged: data, headers and the kernel's structures. It differs between kernels.
PACKET = 2048
# Seconds between two Hellos at 8 kbit/s.
DEPARTURE = 0.08
GROUPS = {socket.AF_INET: "224.0.0.5", socket.AF_INET6: "ff02::5"}


def hello_with_header(host, family, words=5):
    """A Hello to AllSPFRouters with its IP header; `words` is the IHL (IPv4)."""
    source, group = (socket.inet_pton(family, address) for address in (host.address(family), GROUPS[family]))
    payload = HELLO[family]
    if family == socket.AF_INET:
        return struct.pack("!BBHHHBBH4s4s", 0x40 | words, 0, 0, 0, 0, 1, OSPF, 0, source, group) + payload
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), OSPF, 1, source, group) + payload


def header_sender(host, family):
    sender = HelloSender(host, family, hello_with_header(host, family))
    level, option = (
        (socket.IPPROTO_IP, socket.IP_HDRINCL) if family == socket.AF_INET else (socket.IPPROTO_IPV6, IPV6_HDRINCL)
    )
    sender.socket.setsockopt(level, option, 1)
    sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF)
    return sender


def fill(sender, index):
    """Send until the kernel refuses; return the errno's name."""
    for _ in range(1000):
        try:
            sender.send(index)
        except OSError as error:
            return errno_name(error.errno)
    pytest.fail(f"send() succeeded 1000 times with {outq(sender.socket)} bytes in the send buffer, expected an error")


def ospf(packets):
    """OSPF packets over IPv4, whatever their IHL."""
    return packets.which("with OSPF", lambda packet: packet.frame.data[12:14] == b"\x08\x00" and packet.frame.data[23] == OSPF)


@pytest.mark.parametrize("words", [0, 4, 15])
def test_hdrincl_with_invalid_ihl_is_refused(net, words):
    """IHL below 5 words or beyond the packet: EINVAL, and nothing is sent (raw_send_hdrinc()). Kernels without
    "ipv4: raw: reject IP_HDRINCL packets with ihl < 5" send the malformed packet."""
    family = socket.AF_INET
    client, server = net.nodes("client", "server")
    sender = header_sender(client, family)
    good, bad = hello_with_header(client, family), hello_with_header(client, family, words)[:52]
    with client.capture() as packets:
        with refused("EINVAL", "sendto() with an invalid IHL"):
            sender.socket.sendto(bad, (server.address(family), 0))
        sender.socket.sendto(good, (server.address(family), 0))
        packets.until("an OSPF packet sent", lambda seen: ospf(seen.sent()), within=5)

    assert [packet.ip.ihl for packet in ospf(packets.sent())] == [5]


def test_kernel_completes_the_hdrincl_header(net):
    """Total length and checksum always; identification and source address if they are 0 (raw(7))."""
    family = socket.AF_INET
    client, server = net.nodes("client", "server")
    sender = header_sender(client, family)
    with server.capture() as packets:
        blank = bytearray(hello_with_header(client, family))
        blank[12:16] = bytes(4)
        sender.socket.sendto(blank, (server.address(family), 0))
        packets.until("an OSPF packet received", lambda seen: ospf(seen.received()), within=5)

    packet = ospf(packets.received()).only()
    expected = packet.ip.copy()
    del expected.chksum
    assert (packet.ip.src, packet.ip.len) == (client.address(family), len(blank))
    assert packet.ip.chksum == type(expected)(bytes(expected)).chksum
    assert packet.ip.id != 0


def test_hdrincl_packet_beyond_the_mtu_is_refused(net, family):
    """The kernel does not fragment it: EMSGSIZE beyond the MTU of 1500, and 1500 bytes are accepted."""
    client = net["client"]
    sender = header_sender(client, family)
    index = client.interfaces["server"].index
    packet = hello_with_header(client, family)
    sender.packet = packet + bytes(1500 - len(packet))
    sender.send(index)

    sender.packet += b"\0"
    with refused("EMSGSIZE", "send() of a packet longer than the interface's MTU"):
        sender.send(index)


def test_unread_tun_uses_no_send_buffer_with_hdrincl(net, family):
    """As without IP_HDRINCL: tun drops, nothing is charged to the sender, and no send fails."""
    client = net["client"]
    sender = header_sender(client, family)
    with tun(client, "stub", addresses=("203.0.113.1/24", "fe80::1/64")) as stub:
        sender.send_many(stub.index, 700)

        assert (outq(sender.socket), writable(sender.socket)) == (0, True)
        assert stub.dropped() == 700 - stub.ring()


def test_hdrincl_with_a_full_send_buffer_fails_with_eagain(net, family, measure):
    """As soon as all of SO_SNDBUF is in use (sock_alloc_send_skb()). A socket without the option goes on to twice as
    much and gets ENOBUFS."""
    client = net["client"]
    sender = header_sender(client, family)
    interface = client.interfaces["server"]
    with tbf(client, interface.name, "8bit"):
        assert fill(sender, interface.index) == "EAGAIN"
        assert not writable(sender.socket)
        charged = outq(sender.socket)
    assert 2 * SNDBUF <= measure("rawbuf.hdrincl_eagain_at", charged, "B", tolerance=PACKET) < 2 * SNDBUF + PACKET
    assert (outq(sender.socket), writable(sender.socket)) == (0, True)


def test_blocking_hdrincl_send_fails_with_eagain_after_so_sndtimeo(net, family, clock, measure):
    """SO_SNDTIMEO=1 s (socket(7))."""
    client = net["client"]
    sender = header_sender(client, family)
    interface = client.interfaces["server"]
    with tbf(client, interface.name, "8bit"):
        fill(sender, interface.index)
        # Packets that ksoftirqd has yet to deliver are still charged: a datagram over lo comes after them.
        fence(client, client, client.address(family))
        fill(sender, interface.index)
        sender.socket.setblocking(True)
        sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 1, 0))
        clock.align(1)
        with stopwatch() as took, refused("EAGAIN", "send() with a full send buffer"):
            sender.send(interface.index)

    assert measure("rawbuf.hdrincl_blocked_for", took.seconds, "s", timer_slack(1)) == approx_timer(1)


def test_blocking_hdrincl_send_continues_when_a_packet_has_left(net, family, measure):
    """At 8 kbit/s a Hello leaves about every 80 ms; the blocked send then succeeds."""
    client = net["client"]
    sender = header_sender(client, family)
    interface = client.interfaces["server"]
    with tbf(client, interface.name, "8kbit"):
        fill(sender, interface.index)
        fence(client, client, client.address(family))       # as above
        fill(sender, interface.index)
        sender.socket.setblocking(True)
        sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 60, 0))
        with stopwatch() as took:
            sender.send(interface.index)

    # A few departures more or less: how many Hellos leave while the buffer fills depends on how long that takes, and how many fit into half
    # of it on what each is charged: at most PACKET, at least the 256 bytes of the smallest buffer.
    least, most = (SNDBUF / 2 / charge * DEPARTURE for charge in (PACKET, 256))
    assert least / 2 < measure("rawbuf.hdrincl_room_after", took.seconds, "s", tolerance=4 * DEPARTURE) < most
    assert outq(sender.socket) < SNDBUF
