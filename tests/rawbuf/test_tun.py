"""tun and tap devices: without a reader, with one that resumes, and with the link down."""

import errno
import socket
import struct
import time

import pytest

from fixtures.topologies import LAN
from netns import eventually
from netns.hosts.tun import Flags, tun
from netns.named import NamedList
from netns.netlink import rtnl
from netns.packets.raw import HelloSender, outq, tx_queue, writable

pytestmark = pytest.mark.topology(LAN)

# include/uapi/asm-generic/socket.h and net_tstamp.h
SO_TIMESTAMPING, TX_SOFTWARE, SOFTWARE = 37, 1 << 1, 1 << 4
STUB = ("203.0.113.1/24", "fe80::1/64")
KINDS = {
    "tun": Flags.TUN, "tap": Flags.TAP, "tun-napi": Flags.TUN | Flags.NAPI, "tap-napi": Flags.TAP | Flags.NAPI,
}
# A tap reports the group of an IPv6 address once or twice (MLD, RFC 3810); the reports take slots too.
MLD_REPORTS = 4


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def refusal(sender, index):
    """The errno of sending one more Hello, None if it was accepted."""
    try:
        sender.send(index)
    except OSError as error:
        return error.errno


def hellos(packets):
    """The number of Hellos; a tap's packets begin with an Ethernet header."""
    return sum(b"\xc0\x00\x02\x01" in packet for packet in packets)


def test_tun_keeps_each_packet_for_its_reader_or_counts_it_as_dropped(net, family, kind, measure):
    """A ring of tx_queue_len slots (tun 500, tap 1000) keeps the oldest, tx_dropped counts the rest; no send fails
    (drivers/net/tun.c, tun_net_xmit())."""
    client = net["client"]
    sender = HelloSender(client, family)
    with tun(client, "stub", KINDS[kind], addresses=STUB) as stub:
        sender.send_many(stub.index, 1200)
        dropped, kept = stub.dropped(), stub.drain()

        assert (outq(sender.socket), tx_queue(client, sender.socket), writable(sender.socket)) == (0, 0, True)
        # A report may take the first slot that the reader frees.
        kept_most = stub.ring() + MLD_REPORTS
        assert stub.ring() <= measure(f"rawbuf.ring.{kind}", len(kept), "packets", tolerance=MLD_REPORTS) <= kept_most
        assert 0 <= dropped - (1200 - hellos(kept)) <= MLD_REPORTS


def test_multiqueue_tun_has_a_ring_for_each_queue(net, family):
    """Each packet is in one of the rings or counted as dropped; no ring holds more than tx_queue_len."""
    client = net["client"]
    sender = HelloSender(client, family)
    with tun(client, "stub", Flags.TUN | Flags.MULTI_QUEUE, queues=3, addresses=STUB) as stub:
        sender.send_many(stub.index, 1200)
        dropped, kept = stub.dropped(), [len(stub.drain(queue)) for queue in range(3)]

        assert sum(kept) + dropped == 1200
        assert max(kept) == stub.ring()
        assert (outq(sender.socket), writable(sender.socket)) == (0, True)


def test_tun_reader_that_resumes_frees_ring_slots(net, family, measure):
    """The reader frees slots 16 at a time (consumer batch of include/linux/ptr_ring.h): until then each Hello is dropped,
    then the next one is kept."""
    client = net["client"]
    sender = HelloSender(client, family)
    with tun(client, "stub", addresses=STUB) as stub:
        sender.send_many(stub.index, stub.ring() + 1)
        for reads in range(1, 33):      # noqa: B007 (counts for the assertions below)
            stub.read()
            before = stub.dropped()
            sender.send(stub.index)
            if stub.dropped() == before:
                break

        assert measure("rawbuf.reads_until_room", reads, "packets") <= 16
        assert len(stub.drain()) == stub.ring() - reads + 1
        sender.send_many(stub.index, stub.ring())
        assert stub.ring() - 16 < len(stub.drain()) <= stub.ring()


def test_persistent_tun_without_a_reader_drops_and_counts(net, family, measure):
    """Without a descriptor the interface stays and has no carrier: each Hello is accepted and counted as dropped. Linkwatch runs once a
    second; once it has seen the carrier loss, noop_qdisc drops them, which only later kernels count (6.12, not 5.10). A new reader gets
    Hellos as soon as linkwatch has seen its carrier, and none of those that were dropped."""
    client = net["client"]
    sender = HelloSender(client, family)
    with tun(client, "other") as other, tun(client, "stub", addresses=STUB) as stub:
        for device in (other, stub):
            device.set_persistent(True)
        other.close()
        eventually("operstate of the other tun device", other.operstate, "DOWN", within=5)      # the next time is a second later
        stub.close()
        sender.send_many(stub.index, 200)
        at_once = stub.dropped()
        eventually("operstate of the tun device", stub.operstate, "DOWN", within=5)
        sender.send_many(stub.index, 10)

        measure("rawbuf.counted_without_carrier", stub.dropped() - at_once, "packets")
        assert at_once == 200
        assert (outq(sender.socket), tx_queue(client, sender.socket), writable(sender.socket)) == (0, 0, True)
        for device in (other, stub):
            device.attach()
            device.set_persistent(False)

        def arrived():
            sender.send(stub.index)
            return hellos(stub.drain())

        eventually("packets that arrived", arrived, 1, within=5)


def test_send_on_a_tun_that_is_down_fails_with_enetunreach(net, family):
    """An interface that is down has no route. Nothing is charged, the ring keeps its packets, and the socket can still
    send on another interface."""
    client = net["client"]
    sender = HelloSender(client, family)
    with tun(client, "stub", addresses=STUB) as stub:
        sender.send_many(stub.index, 10)
        rtnl.request(client.namespace, [rtnl.link_state(stub.index, up=False)])

        assert errno.errorcode.get(refusal(sender, stub.index)) == "ENETUNREACH"
        assert refusal(sender, client.interfaces["server"].index) is None
        assert (outq(sender.socket), tx_queue(client, sender.socket), writable(sender.socket)) == (0, 0, True)
        assert (stub.dropped(), hellos(stub.drain())) == (0, 10)


def test_deleted_tun_leaves_nothing_charged_to_the_socket(net, family):
    """Closing the last descriptor of a non-persistent tun deletes the interface and its ring. Selecting it fails with
    EADDRNOTAVAIL (IP_MULTICAST_IF) or ENODEV (IPV6_MULTICAST_IF)."""
    client = net["client"]
    sender = HelloSender(client, family)
    with tun(client, "stub", addresses=STUB) as stub:
        sender.send_many(stub.index, 600)
        stub.close()

        expected = "EADDRNOTAVAIL" if family == socket.AF_INET else "ENODEV"
        assert errno.errorcode.get(refusal(sender, stub.index)) == expected
        assert (outq(sender.socket), tx_queue(client, sender.socket), writable(sender.socket)) == (0, 0, True)
        assert refusal(sender, client.interfaces["server"].index) is None


def test_tun_gives_software_tx_timestamps(net, family):
    """SO_TIMESTAMPING (Documentation/networking/timestamping.rst): the sender gets the timestamp on its error queue."""
    client = net["client"]
    with tun(client, "stub", addresses=STUB) as stub, client.socket(family, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE)
        before = time.time()
        sender.sendto(b"x", ("203.0.113.9", 9) if family == socket.AF_INET else ("fe80::9", 9, 0, stub.index))
        _data, ancillary, _flags, _address = sender.recvmsg(100, 512, socket.MSG_ERRQUEUE)

    stamps = [struct.unpack_from("=qq", data) for _level, kind, data in ancillary if kind == SO_TIMESTAMPING]
    assert [before <= seconds + nanoseconds / 1e9 <= before + 1 for seconds, nanoseconds in stamps] == [True]


def one_hello(sender, stub, index):
    """The Hello that the reader gets after one was sent on the interface with this index."""
    sender.send(index)
    return NamedList("Hellos read from the tun device", (packet for packet in stub.drain() if hellos([packet]))).only()


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_tun_reader_gets_the_packet_as_it_was_sent(net, family, kind):
    """From the first byte of the IP header (tap: Ethernet header) to the last byte of data."""
    client = net["client"]
    sender = HelloSender(client, family)
    with tun(client, "stub", KINDS[kind], addresses=STUB) as stub:
        packet = one_hello(sender, stub, stub.index)[14 if kind == "tap" else 0:]

    header = 20 if family == socket.AF_INET else 40
    total = int.from_bytes(packet[2:4], "big") if family == socket.AF_INET else header + int.from_bytes(packet[4:6], "big")
    assert (packet[0] >> 4, total) == (4 if family == socket.AF_INET else 6, len(packet))
    # The kernel computes the OSPF checksum for IPv6 (RFC 3542, 3.1), and the IP header's, but not OSPF's for IPv4.
    assert packet[header:header + 12] + packet[header + 14:] == sender.packet[:12] + sender.packet[14:]


def test_tap_reader_gets_the_vlan_tag_behind_the_mac_addresses(net, family):
    """IEEE 802.1Q. The kernel itself keeps the tag beside the packet data."""
    client = net["client"]
    sender = HelloSender(client, family)
    with tun(client, "stub", Flags.TAP, addresses=STUB) as stub:
        client.run(["ip", "link", "add", "link", "stub", "name", "tagged", "type", "vlan", "id", "5"])
        client.run(["ip", "-batch", "-"], stdin="""
            link set dev tagged up
            address add 203.0.114.1/24 dev tagged
            address add fe80::2/64 dev tagged nodad
        """)
        with client.entered():
            index = socket.if_nametoindex("tagged")
        tagged = one_hello(sender, stub, index)
        plain = one_hello(sender, stub, stub.index)

    assert (tagged[12:16].hex(), tagged[16:18]) == ("81000005", plain[12:14])
    assert len(tagged) == len(plain) + 4
