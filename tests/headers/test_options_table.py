"""IPv4 header options on every way through a router: delivered, with what a router has to write into them, or the error of RFC 792."""

import socket
import struct

import pytest

from fixtures.table import Measured, Must, OneOf, Table
from fixtures.topologies import ROUTED
from netns.packets.icmp import checksum

pytestmark = pytest.mark.topology(ROUTED)

V4 = socket.AF_INET
# RFC 791, 3.1
END, NOP, RECORD, TIMESTAMP, LOOSE, STRICT = 0, 1, 7, 68, 131, 137
ROUTER_ALERT, CIPSO = 148, 134              # RFC 2113, FIPS 188
WAYS = ("local", "forwarded", "conntrack", "DNAT", "SNAT", "reject", "IPVS NAT", "IPVS direct routing", "IPVS tunnel", "ipip",
        "gre", "ESP tunnel")
# Ways on which the router sends a packet on by its own routes; elsewhere the outgoing device has no address, or IPVS sends it.
PLAIN = ("forwarded", "conntrack", "DNAT", "SNAT")
NEAR, FAR, OTHER = (socket.inet_aton(each) for each in ("192.0.2.2", "198.51.100.2", "203.0.113.77"))


def option(kind, *contents):
    """An option with its length: RFC 791, 3.1."""
    data = b"".join(bytes([each]) if isinstance(each, int) else each for each in contents)
    return bytes([kind, 2 + len(data)]) + data


UNKNOWN = {"security": 130, "stream identifier": 136, "MTU probe": 11, "traceroute": 82, "quick-start": 25, "experiment 30": 30,
           "experiment 94": 94, "experiment 158": 158, "experiment 222": 222}
MALFORMED = {"length 0": bytes([30, 0, 0, 0]), "length 1": bytes([30, 1, 0, 0]), "length beyond the header": bytes([30, 5, 0, 0]),
             "length missing": bytes([NOP, NOP, NOP, 30])}
OPTIONS = {
    "none": b"", "no operation": bytes([NOP] * 4), "40 bytes of no operation": bytes([NOP] * 40), "end of list": bytes([END] * 4),
    "end of list, then other bytes": bytes([NOP, END, 1, 2]),
    "record route, room for 1": option(RECORD, 4, bytes(4)), "record route, room for 9": option(RECORD, 4, bytes(36)),
    "record route, 1 of 2 taken": option(RECORD, 8, OTHER, bytes(4)), "record route, full": option(RECORD, 8, OTHER),
    "record route without room": option(RECORD, 4), "record route, room for 3 bytes": option(RECORD, 4, bytes(3)),
    "record route, pointer 3": option(RECORD, 3, bytes(4)), "record route, length 2": bytes([RECORD, 2, NOP, NOP]),
    "two record routes": option(RECORD, 4, bytes(4)) + option(RECORD, 4, bytes(4)),
    "timestamp": option(TIMESTAMP, 5, 0, bytes(8)), "timestamp, full": option(TIMESTAMP, 9, 0, bytes(4)),
    "timestamp, 14 missed": option(TIMESTAMP, 9, 14 << 4, bytes(4)), "timestamp, 15 missed": option(TIMESTAMP, 9, 15 << 4, bytes(4)),
    "timestamp, pointer 4": option(TIMESTAMP, 4, 0, bytes(4)), "timestamp, room for 3 bytes": option(TIMESTAMP, 5, 0, bytes(3)),
    "timestamp, length 3": bytes([TIMESTAMP, 3, 5, NOP]), "timestamp, flag 2": option(TIMESTAMP, 5, 2, bytes(8)),
    "timestamp and address": option(TIMESTAMP, 5, 1, bytes(8)),
    "timestamp and address, room for 4 bytes": option(TIMESTAMP, 5, 1, bytes(4)),
    "timestamp of the router": option(TIMESTAMP, 5, 3, FAR, bytes(4)), "timestamp of another": option(TIMESTAMP, 5, 3, OTHER, bytes(4)),
    "loose source route": option(LOOSE, 4, NEAR), "strict source route": option(STRICT, 4, NEAR),
    "loose source route, used up": option(LOOSE, 8, NEAR), "strict source route, used up": option(STRICT, 8, NEAR),
    "router alert": option(ROUTER_ALERT, 0, 0), "router alert, value 1": option(ROUTER_ALERT, 0, 1),
    "CIPSO": option(CIPSO, bytes(4), 1, 4, 0, 0),
    **{name: option(kind, 0, 0) for name, kind in UNKNOWN.items()},
    **{f"{name} of 40 bytes": option(kind, bytes(38)) for name, kind in UNKNOWN.items()},
    **MALFORMED,
    "no operation, then length 0": bytes([NOP, NOP, 30, 0]),
}
BROKEN = ("header checksum wrong", "header of 16 bytes", "header longer than the packet", "total length too long", "version 5")
WRITES = {"record route, room for 1": "recorded", "record route, room for 9": "recorded", "record route, 1 of 2 taken": "recorded",
          "timestamp": "timestamp", "timestamp, full": "1 more missed", "timestamp, 14 missed": "1 more missed",
          "timestamp and address": "timestamp, recorded", "timestamp of the router": "timestamp"}
ERRORS = {  # RFC 792: the octet where an error was detected. RFC 791, 3.1: what is wrong with each.
    "record route, room for 3 bytes": 22, "record route, pointer 3": 22, "record route, length 2": 21, "two record routes": 27,
    "timestamp, 15 missed": 23, "timestamp, pointer 4": 22, "timestamp, room for 3 bytes": 22, "timestamp, length 3": 21,
    "timestamp and address, room for 4 bytes": 22, "length 0": 20, "length 1": 20, "length beyond the header": 20, "length missing": 23,
    "no operation, then length 0": 22,
}


def expected(way, name):
    """RFC 791, 3.1: what each option asks of a router; RFC 1122, 3.2.1.8: unknown ones are passed over. accept_source_route is off
    (ip-sysctl.rst)."""
    if name in BROKEN:
        return Must("nothing", "RFC 1122, 3.2.1: silently discarded")
    if "source route" in name:
        return Must("nothing", "ip-sysctl.rst, accept_source_route")
    if name in ERRORS:
        at = ERRORS[name]
        return OneOf((f"12/0 at {at}", f"12/0 at {at - 1}", f"12/0 at {at + 1}"), "RFC 792: the octet that is wrong, or its neighbour")
    if name == "CIPSO":
        return Measured("the kernel may have no labels for this domain")
    if name == "end of list, then other bytes":
        return OneOf(("delivered", "delivered, other options"), "RFC 791, 3.1: what follows the end of the list is padding of 0")
    if name == "timestamp, flag 2":
        return Measured("RFC 791 has no such flag")
    if name not in WRITES or way in ("local", "reject"):
        return "delivered"
    if way not in PLAIN:
        return Measured("RFC 791 does not say which address a tunnel or a balancer has")
    if name == "timestamp, 14 missed":
        return "12/0 at 23"                 # the router counts 15, and the server cannot count on
    if name == "timestamp and address":
        return OneOf(("delivered, timestamp, recorded near side", "delivered, timestamp, recorded far side"),
                     "RFC 791, 3.1 does not say which")
    return f"delivered, {WRITES[name].replace('recorded', 'recorded far side')}"


TABLE = Table("headers.options", "way", "options", "RFC 791, 3.1; RFC 792; RFC 1122, 3.2.1.8; RFC 1812, 4.2.2 and 5.2.4", {
    f"IPv4, {way}": {name: expected(way, name) for name in (*OPTIONS, *BROKEN)} for way in WAYS})


def packet(way, name, datagram):
    """The datagram behind a header with these options, padded to whole words."""
    options = OPTIONS.get(name, b"")
    options += bytes(-len(options) % 4)
    version, words = (5 if name == "version 5" else 4), 5 + len(options) // 4
    words = {"header of 16 bytes": 4, "header longer than the packet": 15}.get(name, words)
    data = datagram[:20] if words == 15 and not options else datagram
    total = 20 + len(options) + len(data) + (100 if name == "total length too long" else 0)
    way.count += 1
    header = struct.pack("!BBHHHBBH", version << 4 | words, 0, total, way.count, 0, 64, socket.IPPROTO_UDP, 0)
    header += socket.inet_aton(way.source) + socket.inet_aton(way.destination) + options
    check = checksum(header) ^ (0x5555 if name == "header checksum wrong" else 0)
    return header[:10] + struct.pack("!H", check) + header[12:] + data


def written(sent, got):
    """What became of the options between two packets."""
    before, after = (data[20:4 * (data[0] & 15)] for data in (sent, got))
    if before == after:
        return ""
    if len(before) != len(after) or before[:2] != after[:2] or before[0] not in (RECORD, TIMESTAMP):
        return ", other options"
    kind, pointer, step = before[0], before[2], after[2] - before[2]
    start = pointer - 1
    if kind == RECORD:
        return f", recorded {side(after[start:start + 4])}" if step == 4 else ", other options"
    if step == 0:
        return ", 1 more missed" if after[3] >> 4 == (before[3] >> 4) + 1 else ", other options"
    recorded = f", recorded {side(after[start:start + 4])}" if before[3] & 15 == 1 else ""
    return ", timestamp" + recorded


def side(address):
    """Which of the router's addresses it is."""
    return {NEAR: "near side", FAR: "far side"}.get(address, "another address")


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_ipv4_options_are_carried_out_or_reported(way, row, table):
    """UDP behind each option: whether its data arrives unchanged, what the router wrote into the option, and the ICMP errors."""
    for column in table:
        datagram = way.datagram()
        sent = packet(way, column, datagram)
        with way.end.capture("udp") as seen:
            text = way.outcome(sent, payload=[datagram[8:]])
        arrived = [each.frame.data[14:] for each in seen.received() if each.frame.data.endswith(datagram[8:])]
        changed = written(sent, arrived[-1]) if arrived and way.end is way.server and "delivered" in text else ""
        table.saw(text + changed)


# RFC 791, 3.1: bit 7 of the type says that the option is in each fragment.
WHOLE = {name: data for name, data in OPTIONS.items() if data and data[0] > NOP and "source route" not in name
         and name not in (*ERRORS, "CIPSO", "timestamp, flag 2", "timestamp, 14 missed")}
COPIES = Table("headers.options-in-fragments", "way", "options", "RFC 791, 3.1 and 3.2", {
    "IPv4, forwarded": {name: f"in {'each' if data[0] & 0x80 else 'the first'} of 3 fragments" for name, data in WHOLE.items()}})


@pytest.mark.table(COPIES)
@pytest.mark.parametrize("row", COPIES.rows)
def test_router_copies_an_option_into_the_fragments_that_it_is_for(way, row, table):
    """1200 bytes over a route with an MTU of 576: in which fragments the option is; no other octet than padding stands in its place."""
    way.router.run(["ip", "route", "add", way.server.address(V4), "dev", "to-server", "mtu", "576"])
    for column in table:
        datagram = way.datagram(1200)
        with way.end.capture("udp") as seen:
            text = way.outcome(packet(way, column, datagram), payload=[datagram[8:]])
        sent = WHOLE[column]
        fragments = [each.frame.data[14:] for each in seen.received() if each.fragment is not None]
        options = [data[20:4 * (data[0] & 15)] for data in fragments]
        found = [each[0] == sent[0] and len(each) >= len(sent) for each in options]
        others = [each for each, there in zip(options, found) if not there and each.strip(bytes([NOP, END]))]
        where = "in each" if all(found) else "in the first" if found[:1] == [True] else "not in the first"
        alike = found[1:].count(True) in (0, len(found) - 1)
        table.saw(f"{where} of {len(found)} fragments" if text == "delivered" and alike and not others else f"{text}, {found}, {others}")
