"""Routes with a small MTU: how a packet is cut, and which is too small to cut it. Source: RFC 791, 3.1 and 3.2: a fragment has at least
eight bytes of data, and each module must be able to forward 68 bytes."""

import socket
import struct

import pytest

from fixtures.table import Table
from fixtures.topologies import ROUTED
from fixtures.watchdog import ends_the_machine
from netns.attempt import errno_of
from netns.traffic.closing import fence

pytestmark = [
    pytest.mark.topology(ROUTED), pytest.mark.virtual_clock("an affected kernel loops forever: needs its own machine"),
]

V4 = socket.AF_INET
HEADER, DATA = 20, 80
LONGEST = 60                                # seconds for a row
MTUS = (576, 100, 99, 76, 68, 67, 36, 35, 29, 28, 27, 24, 21, 20, 19, 1)
LOCKS = {"mtu": ("mtu",), "mtu lock": ("mtu", "lock")}
# What is sent. A copied option is in each fragment, so that it leaves less room: RFC 791, 3.1.
OPTIONS = {"no options": b"", "security": bytes([130, 4, 0, 0]), "36 bytes of options": bytes([130, 36]) + bytes(34)}


def expected(mtu, options):
    """RFC 791, 3.2: as many eights of bytes as fit into each fragment; if there is not room for one, none."""
    header = HEADER + len(OPTIONS[options])
    room = (mtu - header) // 8 * 8
    if header + DATA <= mtu:
        return str(DATA)
    return "+".join(map(str, [room] * (DATA // room) + [DATA % room] * (DATA % room > 0))) if room >= 8 else "dropped, FragFails"


TABLE = Table("routing.small_mtu", "cut by, MTU of its route", "packet, MTU", "RFC 791, 3.2; RFC 4293, ipSystemStatsOutFragFails", {
    f"{cutter}, {lock}": {f"{options}, {mtu}": expected(mtu, options) for mtu in MTUS for options in OPTIONS}
    for cutter in ("host", "router") for lock in LOCKS})


def packet(number, here, there, options):
    """A datagram that may be fragmented, with its header: the socket looks at no path MTU."""
    datagram = struct.pack("!HHHH", 4000, 4000, DATA, 0) + bytes(DATA - 8)
    header = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 0, number, 0, 64, socket.IPPROTO_UDP, 0)
    return header + socket.inet_aton(here) + socket.inet_aton(there) + options + datagram


def outcome(cutter, seen, number, before):
    """The data of each fragment that arrived, once the packet has been dealt with."""
    failed = cutter.counter("Ip.FragFails") - before
    sizes = [len(each.frame.data) - 14 - 4 * (each.frame.data[14] & 15) for each in seen.received()
             if each.frame.data[12:14] == b"\x08\x00" and int.from_bytes(each.frame.data[18:20], "big") == number]
    return "+".join(map(str, sizes)) or ("dropped, FragFails" if failed else "dropped")


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_packet_is_cut_if_each_fragment_has_room_for_data(net, row, table):
    """Else it is dropped and counted, whether the host or a router has to cut it."""
    client, server, router = net.nodes("client", "server", "router")
    here, there = client.address(V4), server.address(V4)
    where, lock = row.split(", ")
    cutter = client if where == "host" else router
    way = ["via", router.address(V4, "client")] if where == "host" else ["dev", "to-server"]
    raw = client.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with ends_the_machine(LONGEST):
        for number, column in enumerate(table, 1):
            options, mtu = column.rsplit(", ", 1)
            route = ["ip", "route", "replace", f"{there}/32", *way, *LOCKS[lock], mtu]
            cutter.run(route)
            before = cutter.counter("Ip.FragFails")
            with server.capture() as seen:
                errno_of(raw.sendto, packet(number, here, there, OPTIONS[options]), (there, 0))
                cutter.run(["ip", "route", "del", f"{there}/32"])
                fence(client, server, there)
            table.saw(outcome(cutter, seen, number, before))
