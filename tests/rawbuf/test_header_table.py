"""Headers that a program supplies with IP_HDRINCL: each header length x the size of the packet. Source: raw(7); RFC 791, 3.1."""

import socket
import struct

import pytest

from fixtures.table import Table
from fixtures.topologies import LAN
from netns.attempt import errno_of
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(LAN)

V4 = socket.AF_INET
LEAST, EXPERIMENT = 20, 253                 # bytes of a header; an IP protocol for experiments: RFC 3692
SIZES = (1, 12, 16, 19, 20, 23, 24, 28, 40, 59, 60, 61, 100)
WORDS = range(16)


def expected(size, words):
    """RFC 791, 3.1: the header has at least 5 words. It is a part of the packet."""
    return "sent" if size >= LEAST and LEAST <= 4 * words <= size else "EINVAL"


TABLE = Table("raw.header_length", "size of the packet in bytes", "IHL", "raw(7): EINVAL, invalid argument; RFC 791, 3.1, IHL", {
    f"{size} bytes": {f"IHL {words}": expected(size, words) for words in WORDS} for size in SIZES})


def supplied(here, there, size, words):
    """The kernel fills in the length, the identification and the checksum: raw(7). What follows the first 20 bytes is 0."""
    header = struct.pack("!BBHHHBBH", 0x40 | words, 0, 0, 0, 0, 64, EXPERIMENT, 0) + socket.inet_aton(here) + socket.inet_aton(there)
    return header.ljust(size, b"\0")[:size]


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_supplied_header_is_sent_if_its_length_can_be(net, row, table):
    """Else the call fails, and nothing is sent."""
    client, server = net.nodes("client", "server")
    here, there = client.address(V4), server.address(V4)
    size = int(row.split()[0])
    raw = client.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for column in table:
        with client.capture() as packets:
            result = errno_of(raw.sendto, supplied(here, there, size, int(column.split()[1])), (there, 0))
            fence(client, server, there)
        sent = [each for each in packets.sent() if each.frame.data[12:14] == b"\x08\x00" and each.frame.data[23] == EXPERIMENT]
        if isinstance(result, str):
            table.saw(f"{result}, but sent" if sent else result)
        else:
            table.saw("sent" if len(sent) == 1 else "accepted, but not sent")
