"""SPIs: the ranges that a key manager asks for x the protocol, and the SPIs of SAs at the edges of what there is."""

import socket
import struct

import pytest
from pyroute2.netlink import NLM_F_REQUEST

from fixtures.table import LeftOut, Measured, OneOf, Table
from fixtures.topologies import LAN
from fixtures.xfrm_fate import Traffic
from netns.attempt import errno_name
from netns.netlink import xfrm, xfrm_wire as wire
from netns.netlink.message import HEADER, message
from netns.netlink.xfrm import SA, Policy, Selector, Template

pytestmark = pytest.mark.topology(LAN)

NETLINK_XFRM, ALLOCSPI, FLUSHSA, ERROR = 6, 0x16, 0x1C, 2
LARGEST = 0xFFFFFFFF
# The protocol's number, and its largest SPI: RFC 4303 and 4302, 2.4; RFC 3173, 3.3.
PROTOCOLS = {"ESP": (50, LARGEST), "AH": (51, LARGEST), "IPCOMP": (108, 0xFFFF)}
RANGES = {
    "256 to 256": (0x100, 0x100), "256 to 257": (0x100, 0x101), "65535 to 65535": (0xFFFF, 0xFFFF), "256 to 65535": (0x100, 0xFFFF),
    "65536 to 65536": (0x10000, 0x10000), "256 to 65536": (0x100, 0x10000), "256 to the largest": (0x100, LARGEST),
    "the largest": (LARGEST, LARGEST), "2^31 - 1 to 2^31": (2**31 - 1, 2**31), "1 to 1": (1, 1), "255 to 256": (255, 256), "0 to 0": (0, 0),
    "0 to the largest": (0, LARGEST), "257 to 256": (0x101, 0x100), "the largest to 256": (LARGEST, 0x100),
}
REFUSED = OneOf(("EINVAL", "ERANGE", "ENOENT", "ENOSPC"), "the range is empty, or beyond the protocol's; no document names the errno")
RESERVED = "RFC 4303, 2.1: 1 to 255 are reserved for IANA, 0 for local use; no document says whether the kernel allots them"


def allotted(protocol, least, most, again):
    if least > most or most > PROTOCOLS[protocol][1]:
        return REFUSED
    if again and most == least + 1:
        return LeftOut("the kernel tries at random, and may not find the one that is left")
    if least < 0x100:
        return Measured(RESERVED)
    return REFUSED if again and least == most else "within the range"


# The second request is for another SA, to the same address.
SOURCE = "RFC 4301, 4.4.2.1; RFC 4303, 2.1; RFC 3173, 3.3"
ASKED = Table("xfrm.allocate_spi", "protocol", "range, and whether it is asked for again", SOURCE, {
    protocol: {f"{name}{', again' if again else ''}": allotted(protocol, *limits, again)
               for name, limits in RANGES.items() for again in (False, True)} for protocol in PROTOCOLS})
# The SPI of both ends' SA.
SPIS = {"0": 0, "1": 1, "255": 255, "256": 256, "32767": 0x7FFF, "65535": 0xFFFF, "65536": 0x10000, "2^31 - 1": 2**31 - 1, "2^31": 2**31,
        "2^32 - 2": LARGEST - 1, "2^32 - 1": LARGEST}
ADDED = Table("xfrm.spi", "mode", "SPI", "RFC 4303, 2.1", {
    mode: {name: "delivered, ESP with this SPI" if spi >= 0x100 else Measured(RESERVED) for name, spi in SPIS.items()}
    for mode in ("transport", "tunnel")})


def allocate(netlink, sa, protocol, least, most):
    """XFRM_MSG_ALLOCSPI with struct xfrm_userspi_info: the SPI of the answer, or an errno's name."""
    body = bytearray(wire.sa(sa)[:wire.SA_SIZE])
    body[wire.SA_PROTOCOL_AT] = PROTOCOLS[protocol][0]
    netlink.send(message(ALLOCSPI, NLM_F_REQUEST, bytes(body) + struct.pack("=II", least, most)))
    answer = netlink.recv(1 << 16)
    if HEADER.unpack_from(answer)[1] == ERROR:
        return errno_name(-struct.unpack_from("=i", answer, HEADER.size)[0])
    return int.from_bytes(answer[HEADER.size + wire.SA_PROTOCOL_AT - 4:HEADER.size + wire.SA_PROTOCOL_AT], "big")


@pytest.mark.table(ASKED)
@pytest.mark.parametrize("row", ASKED.rows)
def test_allotted_spi_is_within_the_range_that_was_asked_for(net, family, row, table):
    """And a range of one SPI has room for one SA to an address."""
    client, server = net.nodes("client", "server")
    here, there = client.address(family), server.address(family)
    with client.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as netlink:
        netlink.settimeout(10)
        for column in table:
            least, most = RANGES[column.partition(", again")[0]]
            found = allocate(netlink, SA(here, there, 0, reqid=1), row, least, most)
            if column.endswith("again"):
                found = allocate(netlink, SA(here, there, 0, reqid=2), row, least, most)
            netlink.send(message(FLUSHSA, NLM_F_REQUEST, bytes(4)))
            table.saw(found if isinstance(found, str) else "within the range" if least <= found <= most else f"SPI {found}")


@pytest.mark.table(ADDED)
@pytest.mark.parametrize("row", ADDED.rows)
def test_sa_works_with_every_spi(net, family, row, table):
    """Also with the largest, and with those whose first bit is 1."""
    traffic = Traffic(*net.nodes("client", "server"), family)
    here, there = traffic.here, traffic.there
    for number, column in enumerate(table):
        port = 4000 + number
        selector, template = Selector(here, there, socket.IPPROTO_UDP, dport=port), Template(here, there, port, row)
        sa = SA(here, there, SPIS[column], port, row)
        try:
            xfrm.add(traffic.client, Policy(selector, template), sa)
            xfrm.add(traffic.server, Policy(selector, template, direction="in"), sa)
        except OSError as error:
            table.saw(errno_name(error.errno))
            continue
        with traffic.receiver(port) as receiver, traffic.sender() as sender, traffic.client.capture("esp") as packets:
            fate = traffic.fate(sender, receiver)
            spis = {packet.spi for packet in packets.sent()}
        table.saw(f"{fate}{', ESP with this SPI' if spis == {SPIS[column]} else ', ESP with another' if spis else ''}")
