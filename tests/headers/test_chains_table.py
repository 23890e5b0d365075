"""Chains of IPv6 extension headers on every way through a router: delivered, or the error of RFC 8200."""

import socket
import struct
from itertools import permutations, product

import pytest

from fixtures.table import Measured, Must, OneOf, Table, allowed
from fixtures.topologies import ROUTED

pytestmark = pytest.mark.topology(ROUTED)

HOP, ROUTING, FRAGMENT, AH, NONE, DESTINATION, UDP = 0, 43, 44, 51, 59, 60, 17
UNASSIGNED = 253                            # RFC 3692
WAYS = ("local", "forwarded", "conntrack", "DNAT", "SNAT", "reject", "IPVS NAT", "IPVS direct routing", "IPVS tunnel", "ip6tnl", "sit",
        "gre", "ESP tunnel")
TRACKED = ("conntrack", "DNAT", "SNAT", "IPVS NAT", "IPVS direct routing", "IPVS tunnel")
# By their letters in names: type, and contents behind the next header.
PAD_N = bytes([1, 4, 0, 0, 0, 0])
HEADERS = {
    "H": (HOP, b"\0" + PAD_N),
    "D": (DESTINATION, b"\0" + PAD_N),
    "R": (ROUTING, bytes([0, UNASSIGNED, 0, 0, 0, 0, 0])),             # an unknown type without segments left: RFC 8200, 4.4
    "F": (FRAGMENT, bytes([0, 0, 0]) + b"atom"),                       # RFC 6946
}
ALERT = bytes([5, 2, 0, 0])                 # RFC 2711, and two bytes of padding
OPTIONS = {
    "six Pad1": bytes(6), "PadN of 4 bytes": PAD_N, "PadN of no bytes": bytes([1, 0, 1, 0, 1, 0]), "router alert": ALERT + bytes([1, 0]),
    **{f"unknown option {number:#x}": bytes([number, 4, 1, 2, 3, 4]) for number in (0x1E, 0x3E, 0x5E, 0x9E, 0xDE)},
    "known after unknown 0x1e": bytes([0x1E, 0]) + ALERT, "option beyond its header": bytes([0x1E, 9, 0, 0, 0, 0]),
    "PadN with data": bytes([1, 4, 1, 2, 3, 4]), "option that fills 8 more bytes": bytes([0x1E, 12]) + bytes(12),
}


def option_header(kind, options):
    return kind, bytes([(len(options) + 2) // 8 - 1]) + options


def routing(kind, left, segments=0):
    """A routing header of this type: RFC 8200, 4.4."""
    return ROUTING, bytes([2 * segments, kind, left, 0, 0, 0, 0]) + b"".join(
        socket.inet_pton(socket.AF_INET6, f"2001:db8:77::{each}") for each in range(segments))


def chained(headers, last):
    """The next header of the IPv6 header, and the extension headers before one of the type `last`."""
    kinds = [kind for kind, _contents in headers] + [last]
    return kinds[0], b"".join(bytes([following]) + contents for (_kind, contents), following in zip(headers, kinds[1:]))


def named(letters):
    return [HEADERS[letter] for letter in letters]


# RFC 8200, 4.1: a node accepts any order and any number, except that hop-by-hop options come first.
SUBSETS = ["".join(letter for letter, used in zip("HDRFD", bits) if used) for bits in product((0, 1), repeat=5)]
ORDERS = ["".join(order) for order in permutations("DRF")]
REPEATED = ["DD", "DDD", "RR", "FF", "DFD", "FDF", "RFR", "HDDRRFF", "HFFRRDD", "DDDDDDDD", "HDRFDRFD"]
LEGAL = list(dict.fromkeys([*SUBSETS, *ORDERS, *("H" + order for order in ORDERS), *REPEATED]))
HOP_LATER = ["DH", "HH", "RH", "FH", "DRFH", "HDH"]
CHAINS = {
    **{letters or "none": (named(letters), UDP) for letters in LEGAL},
    **{letters: (named(letters), UDP) for letters in HOP_LATER},
    **{f"{letter} with {name}": ([option_header(kind, options)], UDP)
       for letter, kind in (("H", HOP), ("D", DESTINATION)) for name, options in OPTIONS.items()},
    **{f"routing type {kind}, {left} left": ([routing(kind, left, segments)], UDP)
       for kind, left, segments in ((0, 0, 0), (0, 0, 1), (0, 1, 1), (2, 0, 1), (3, 0, 0), (4, 0, 1), (UNASSIGNED, 0, 1),
                                    (UNASSIGNED, 1, 1), (UNASSIGNED, 255, 2))},
    **{f"{letters}, then {name}": (named(letters), number) for letters in ("", "H", "D", "DR", "F")
       for name, number in (("no next header", NONE), ("an unknown protocol", UNASSIGNED))},
}


def pointer(headers, index):
    """Where the header with this index names the one behind it; -1: the IPv6 header."""
    return 6 if index < 0 else 40 + sum(1 + len(contents) for _kind, contents in headers[:index])


def at_the_end(name, headers, last):
    """What the end of a way says of a packet, or a router of its hop-by-hop options."""
    if "option 0x" in name:
        bits = int(name.rsplit(" ", 1)[1], 16) >> 6
        # RFC 8200, 4.2: skip, discard, discard and report, report unless multicast; the pointer is at the option's type.
        return ("delivered", "nothing", "4/2 at 42", "4/2 at 42")[bits]
    if name in HOP_LATER:
        return f"4/1 at {pointer(headers, len(headers) - 2)}"
    if name.startswith("routing type"):
        kind, left = int(name.split()[2].rstrip(",")), int(name.split()[3])
        if kind == UNASSIGNED and left:
            return "4/0 at 42"              # the routing type: RFC 8200, 4.4
        if kind == 0:
            return OneOf(("delivered", "4/0 at 42", "nothing"), "RFC 5095: treated as unknown, or filtered") if not left else "4/0 at 42"
        if kind in (2, 3, 4):
            return Measured("RFC 6275, 6554 and 8754 say it for nodes with mobility, RPL and segment routing")
        return "delivered"
    if last == NONE:
        return Must("nothing", "RFC 8200, 4.7")
    if last == UNASSIGNED:
        return f"4/1 at {pointer(headers, len(headers) - 1)}"
    if "beyond" in name:
        return Measured("RFC 8200 does not say what an option does that is longer than its header")
    if "PadN with data" in name:
        return OneOf(("delivered", "nothing"), "RFC 4942, 2.1.9.5: a firewall may drop it")
    return "delivered"


def expected(way, name):
    """It is the end that decides: a router passes on what is not for it (RFC 7045, 2.1). Where the kernel may do otherwise the reason
    stands beside it."""
    headers, last = CHAINS[name]
    rule = at_the_end(name, headers, last)
    if sum(kind == FRAGMENT for kind, _contents in headers) > 1:
        first, second = [index for index, (kind, _contents) in enumerate(headers) if kind == FRAGMENT][:2]
        return OneOf(("delivered", f"4/0 at {pointer(headers, second)}", f"4/0 at {pointer(headers, second) - 8}"),
                     "RFC 8504, 5.3: a host may limit the headers; the kernel takes one fragment header (ipv6_frag_rcv())")
    if way == "reject" and last == UDP and rule != "delivered" and not name.startswith("H with"):
        return OneOf((*allowed(rule), "delivered"), "the firewall rejects before the host has looked at the headers")
    if way in TRACKED and any(kind == FRAGMENT for kind, _contents in headers) and (name in HOP_LATER or last != UDP):
        without = [header for header in headers if header[0] != FRAGMENT]
        if name in HOP_LATER:
            other = f"4/1 at {pointer(without, len(without) - 2)}" if len(without) > 1 else "delivered"
        else:
            other = at_the_end(name, without, last)
        return OneOf((*allowed(rule), *allowed(other)), "tracking takes the header off an atomic fragment (nf_ct_frag6_gather())")
    return rule


CHAINS_TABLE = Table("headers.chains", "way", "extension headers", "RFC 8200, 4.1 to 4.7; RFC 7045, 2.1", {
    f"IPv6, {way}": {name: expected(way, name) for name in CHAINS} for way in WAYS})


@pytest.mark.table(CHAINS_TABLE)
@pytest.mark.parametrize("row", CHAINS_TABLE.rows)
def test_chain_of_extension_headers_is_delivered_or_reported(way, row, table):
    """UDP behind each chain: whether its data arrives unchanged, and the ICMPv6 errors with their pointers."""
    addresses = socket.inet_pton(socket.AF_INET6, way.source) + socket.inet_pton(socket.AF_INET6, way.destination)
    for column in table:
        headers, last = CHAINS[column]
        first, chain = chained(headers, last)
        datagram = way.datagram()
        packet = struct.pack("!IHBB", 0x60000000, len(chain) + len(datagram), first, 64) + addresses + chain + datagram
        table.saw(way.outcome(packet, payload=[datagram[8:]]))
