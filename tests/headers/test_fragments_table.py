"""Fragments on every way through a router: a first part that ends anywhere, any order, duplicates, overlaps, parts that are missing."""

import socket
import struct
from dataclasses import dataclass

import pytest

from fixtures.table import Measured, OneOf, Table, allowed
from fixtures.topologies import ROUTED
from netns.packets.icmp import checksum

pytestmark = pytest.mark.topology(ROUTED)

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = {"IPv4": V4, "IPv6": V6}
FRAGMENT, DESTINATION, ROUTING, HOP, UDP, TCP = 44, 60, 43, 0, 17, 6
MORE, DF = 0x2000, 0x4000                   # RFC 791, 3.1
WAYS = {V4: ("local", "forwarded", "conntrack", "DNAT", "SNAT", "reject", "IPVS NAT", "IPVS direct routing", "IPVS tunnel", "ipip", "gre",
             "ESP tunnel"),
        V6: ("local", "forwarded", "conntrack", "DNAT", "SNAT", "reject", "IPVS NAT", "IPVS direct routing", "IPVS tunnel", "ip6tnl", "sit",
             "gre", "ESP tunnel")}
REASSEMBLING = ("conntrack", "DNAT", "SNAT", "IPVS NAT", "IPVS direct routing", "IPVS tunnel")
LENGTH = 108                                # of the datagram, with its header of 8 bytes
# Destination options behind the fragment header, and headers before it: RFC 8200, 4.5.
OPTIONS = bytes([UDP, 2, 0x1E, 20]) + bytes(20)          # one that the receiver skips
BEFORE = {"H": (HOP, b"\1\4\0\0\0\0"), "D": (DESTINATION, b"\1\4\0\0\0\0"), "R": (ROUTING, bytes([253, 0, 0, 0, 0, 0]))}


@dataclass(frozen=True)
class Part:
    """Bytes of the datagram from `start` to `end`, said to begin at `offset`; `last` has no others behind it."""

    start: int
    end: int
    last: bool = False
    offset: int = -1
    spoilt: bool = False

    @property
    def at(self):
        return self.start if self.offset < 0 else self.offset


def parts(*cuts, length=LENGTH):
    """The whole datagram in parts that end at these offsets."""
    ends = [*cuts, length]
    return [Part(start, end, last=end == length) for start, end in zip([0, *ends], ends)]


THREE = parts(40, 80)
PLANS = {
    **{f"first part of {size} bytes": parts(size) for size in range(8, LENGTH, 8)},
    "parts of 8 bytes": parts(*range(8, LENGTH, 8)),
    "parts of 8 bytes, backwards": parts(*range(8, LENGTH, 8))[::-1],
    "last part first": THREE[::-1],
    "middle part first": [THREE[1], THREE[0], THREE[2]],
    "first part twice": [THREE[0], *THREE],
    "middle part twice": [THREE[0], THREE[1], *THREE[1:]],
    "last part twice": [THREE[2], *THREE],
    "overlap with the same bytes": [THREE[0], Part(32, 80), THREE[2]],
    "overlap with other bytes": [THREE[0], Part(32, 80, spoilt=True), THREE[2]],
    "overlap of the last part": [THREE[0], THREE[1], Part(72, LENGTH, last=True)],
    "part within another": [THREE[0], THREE[1], Part(48, 64), THREE[2]],
    "one part around all": [THREE[1], Part(0, LENGTH, last=True, offset=0), THREE[2]],
    "first part missing": THREE[1:],
    "middle part missing": [THREE[0], THREE[2]],
    "last part missing": THREE[:2],
    "part of 12 bytes that is not the last": [Part(0, 12), Part(12, LENGTH, last=True, offset=16)],
    "beyond 65535 bytes": [THREE[0], Part(40, LENGTH, last=True, offset=65528)],
    "bytes behind the last part": [THREE[0], Part(40, 80, last=True), Part(80, 104)],
    "two last parts": [THREE[0], Part(40, 80, last=True), THREE[2]],
    "empty last part": [*parts(40, 80, 104)[:3], Part(104, 104, last=True, offset=104)],
}
ABANDONED = ("overlap with the same bytes", "overlap with other bytes", "overlap of the last part", "part within another",
             "one part around all", "bytes behind the last part", "two last parts")
TWICE = ("first part twice", "middle part twice", "last part twice")
MISSING = ("first part missing", "middle part missing", "last part missing")
# The chain behind the fragment header, and how much of it is in the first part; then headers before the fragment header.
SPLIT_CHAINS = {f"24 bytes of destination options, first part of {size} bytes": size for size in range(8, 64, 8)}
SPLIT_TCP = {f"TCP, first part of {size} bytes": size for size in (8, 16)}
PREFIXED = {f"{letters} before it, first part of {size} bytes": (letters, size)
            for letters in ("H", "D", "R", "HDR") for size in (8, 16, 48)}
SPECIAL = {V4: ("two datagrams at once", "DF set"), V6: ("two datagrams at once", "atomic between two parts", "atomic")}


def at_the_end(family, name):
    """RFC 791, 3.2; RFC 8200, 4.5; RFC 5722; RFC 6946."""
    if name in TWICE:
        return OneOf(("delivered", "nothing"), "RFC 8200, 4.5: exact duplicates may be dropped, or count as overlaps")
    if name == "part within another":
        return OneOf(("nothing", "delivered"), "RFC 8200, 4.5 exempts exact duplicates; the kernel takes each part within another for one "
                     "(inet_frag_queue_insert())")
    if name in ABANDONED:
        if family == V6:
            return "nothing" if "one part" not in name else OneOf(("nothing", "delivered"), "RFC 6946: alone it is atomic")
        return OneOf(("nothing", "delivered"), "RFC 791, 3.2 takes either copy; the kernel discards them all (ip_frag_queue())")
    if name in MISSING:
        return "nothing" if name == "first part missing" else f"{'11/1' if family == V4 else '3/1 at 0'}".replace(" at 0", "")
    if "12 bytes" in name:
        return "4/0 at 4" if family == V6 else Measured("RFC 791 does not say it")
    if "beyond" in name:
        return "4/0 at 42" if family == V6 else "nothing"
    if name == "empty last part":
        return Measured("RFC 8200 does not say it")
    if name in SPLIT_CHAINS and SPLIT_CHAINS[name] < 32 or name in SPLIT_TCP:
        return "4/3 at 0"
    if name in SPECIAL[family] and name not in ("DF set", "atomic"):
        return "delivered, delivered"
    return "delivered"


def expected(family, way, name):
    """At the end of the way, or at the router that reassembles in its place."""
    rule = at_the_end(family, name)
    if way == "reject" and family == V6:
        return Measured("ip6tables-extensions(8) does not say which fragment is answered")
    if way in REASSEMBLING and family == V6 and name not in ABANDONED and rule != "delivered":
        silent = "delivered" if rule == "4/3 at 0" and name not in SPLIT_TCP else "nothing"
        if rule in ("4/3 at 0", "4/0 at 4", "4/0 at 42", "3/1"):
            return OneOf((*allowed(rule), silent), "RFC 8200 has no rule for a router that reassembles")
    if way in REASSEMBLING and rule == "11/1":
        return OneOf(("11/1", "nothing"), "RFC 792 speaks of hosts")
    if name == "one part around all" and family == V6 and way in REASSEMBLING:
        return OneOf(("nothing", "delivered"), "RFC 6946")
    return rule


def columns(family):
    extra = (*SPLIT_CHAINS, *SPLIT_TCP, *PREFIXED) if family == V6 else ()
    return (*PLANS, *extra, *SPECIAL[family])


TABLES = {name: Table(f"headers.fragments-of-{name.lower()}", "way", "fragments", "RFC 791, 3.2; RFC 792" if family == V4 else
                      "RFC 8200, 4.5; RFC 5722; RFC 6946", {
                          f"{name}, {way}": {column: expected(family, way, column) for column in columns(family)}
                          for way in WAYS[family]}) for name, family in FAMILIES.items()}


class Cutter:
    """Cuts datagrams of a way into packets."""

    def __init__(self, way):
        self.family = way.family
        self.addresses = b"".join(socket.inet_pton(way.family, each) for each in (way.source, way.destination))
        self.number = 0

    def packet(self, data, offset, last, flags=0, first=UDP, before=""):
        """One fragment: `first` is what the fragmented part begins with, `before` are the headers in front of the fragment header."""
        if self.family == V4:
            where = flags | offset // 8 | (0 if last else MORE)
            header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), self.number, where, 64, first, 0)
            header += self.addresses
            return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + data
        kinds = [BEFORE[letter][0] for letter in before] + [FRAGMENT]
        chain = b"".join(bytes([following, 0]) + BEFORE[letter][1] for letter, following in zip(before, kinds[1:]))
        chain += struct.pack("!BBHI", first, 0, offset & 0xFFF8 | (0 if last else 1), self.number)
        return struct.pack("!IHBB", 0x60000000, len(chain) + len(data), kinds[0], 64) + self.addresses + chain + data

    def cut(self, datagram, plan, **words):
        """The packets of one datagram, under an identification of its own."""
        self.number += 1
        return [self.packet(bytes(each ^ 1 for each in datagram[part.start:part.end]) if part.spoilt else datagram[part.start:part.end],
                            part.at, part.last, **words) for part in plan]


def special(cutter, name, one, two):
    """The packets of two datagrams."""
    if name == "two datagrams at once":
        first, second = cutter.cut(one, THREE), cutter.cut(two, THREE)
        return [packet for pair in zip(first, second) for packet in pair]
    packets = cutter.cut(one, THREE)
    return [packets[0], cutter.packet(two, 0, last=True), *packets[1:]]


def check(way, column, clock):
    """What came of the cell."""
    cutter, datagram = way.cutter, way.datagram(LENGTH - 8)
    payloads = [datagram[8:]]
    if column in PLANS:
        packets = cutter.cut(datagram, PLANS[column])
    elif column in SPLIT_CHAINS:
        whole = OPTIONS + datagram
        packets = cutter.cut(whole, parts(SPLIT_CHAINS[column], length=len(whole)), first=DESTINATION)
    elif column in SPLIT_TCP:
        packets = cutter.cut(datagram, parts(SPLIT_TCP[column]), first=TCP)
    elif column in PREFIXED:
        letters, size = PREFIXED[column]
        packets = cutter.cut(datagram, parts(size), before=letters)
    elif column in ("atomic", "DF set"):
        packets = cutter.cut(datagram, parts() if column == "atomic" else THREE, **({} if column == "atomic" else {"flags": DF}))
    else:
        payloads.append(way.datagram(LENGTH - 8)[8:])
        packets = special(cutter, column, datagram, way.last)
    return way.outcome(*packets, payload=payloads, pause=(lambda: clock.sleep(2.5)) if column in MISSING else None)


@pytest.mark.table(TABLES["IPv4"])
@pytest.mark.parametrize("row", TABLES["IPv4"].rows)
def test_ipv4_fragments_are_delivered_whole_or_reported(way, row, table, clock):
    """UDP in fragments: whether its data arrives unchanged, and the ICMP errors."""
    way.cutter = Cutter(way)
    for column in table:
        table.saw(check(way, column, clock))


@pytest.mark.table(TABLES["IPv6"])
@pytest.mark.parametrize("row", TABLES["IPv6"].rows)
def test_ipv6_fragments_are_delivered_whole_or_reported(way, row, table, clock):
    """As over IPv4."""
    way.cutter = Cutter(way)
    for column in table:
        table.saw(check(way, column, clock))
