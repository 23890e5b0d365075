"""Routes whose MTU has no room for data: a fragment carries at least eight bytes, RFC 791 (3.2)."""

import socket
import struct

import pytest

from fixtures.topologies import ROUTED
from fixtures.watchdog import ends_the_machine
from netns.traffic.closing import fence

pytestmark = [
    pytest.mark.topology(ROUTED),
    pytest.mark.virtual_clock("an affected kernel loops forever: needs its own machine"),
]

V4 = socket.AF_INET
HEADER, DATA = 20, 80
WITHIN = 5                                  # seconds for the packet to be dropped or cut


@pytest.fixture(autouse=True)
def loop_ends_the_machine():
    """When the test has no more to wait for."""
    with ends_the_machine(WITHIN + 1):
        yield


def send(host, source, destination):
    """A datagram that may be fragmented, with its header: the socket looks at no path MTU."""
    datagram = struct.pack("!HHHH", 4000, 4000, DATA, 0) + bytes(DATA - 8)
    header = struct.pack("!BBHHHBBH", 0x45, 0, HEADER + DATA, 1, 0, 64, socket.IPPROTO_UDP, 0)
    with host.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(header + socket.inet_aton(source) + socket.inet_aton(destination) + datagram, (destination, 0))


@pytest.mark.parametrize("mtu, sender", [(20, "router"), (27, "host"), (28, "router"), (28, "host")])
def test_packet_is_dropped_when_the_mtu_leaves_no_room_for_fragment_data(net, mtu, sender):
    """Less than a header and eight bytes: FragFails, whether the host or a router has to cut it. With just as much the
    fragments have eight bytes each. Kernels without "ipv4: reject undersized MTUs in ip_do_fragment()" make empty
    fragments for ever."""
    client, server = net.nodes("client", "server")
    here, there = client.address(V4), server.address(V4)
    cutter = net["client" if sender == "host" else "router"]
    way = ["via", net["router"].address(V4, "client")] if sender == "host" else ["dev", "to-server"]
    cutter.run(["ip", "route", "add", f"{there}/32", *way, "mtu", str(mtu)])

    with server.capture("udp") as packets:
        try:
            send(client, here, there)
        except OSError:
            assert mtu < HEADER + 8
        if mtu < HEADER + 8:
            cutter.await_counter("Ip.FragFails", 1, within=WITHIN)
        else:
            cutter.await_counter("Ip.FragCreates", DATA // 8, within=WITHIN)
        cutter.run(["ip", "route", "del", f"{there}/32"])
        fence(client, server, there)

    fragments = [packet.ip.len - HEADER for packet in packets.received() if packet.ip.id == 1]
    assert fragments == ([] if mtu < HEADER + 8 else [8] * (DATA // 8))
