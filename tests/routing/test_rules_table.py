"""Which packets a routing rule is for: each selector of ip-rule(8), alone, negated and combined, against packets of every origin.

The rule leads to table 100, whose default route is another device than that of the main table.
"""

import socket

import pytest

from fixtures.table import Measured, Table
from fixtures.topologies import TWO_WAYS
from netns import ExpectationFailed, eventually
from netns.hosts import tunnel
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.netlink import routes
from netns.traffic.origins import DPORT, EXPERIMENT, MARK, SPORT, TOS, USER, Origins

V4, V6 = socket.AF_INET, socket.AF_INET6
pytestmark = pytest.mark.topology(TWO_WAYS)

TABLE = 100
NETWORK = {V4: "192.0.2.0/24", V6: "2001:db8:1::/64"}
ROUTER = {V4: "192.0.2.2/32", V6: "2001:db8:1::2/128"}
CLIENT = {V4: "192.0.2.1/32", V6: "2001:db8:1::1/128"}
DESTINATIONS = {V4: "203.0.113.0/24", V6: "2001:db8:3::/64"}
ELSEWHERE = {V4: "198.51.100.0/24", V6: "2001:db8:4::/64"}

UNKNOWN = "unknown"
ICMP, UDP, TCP, IPIP, ESP = "icmp", 17, 6, "ipip", 50
NUMBERS = {(ICMP, V4): 1, (ICMP, V6): 58, (IPIP, V4): 4, (IPIP, V6): 41}
LOCAL = {"from_": ROUTER, "iif": "lo", "oif": None, "fwmark": MARK, "uidrange": USER, "tos": TOS}
# No document says to whom a packet belongs that no socket sends.
FORWARDED = {"from_": CLIENT, "iif": "to-client", "oif": None, "fwmark": MARK, "uidrange": UNKNOWN, "tos": TOS}
PORTS = {"sport": SPORT, "dport": DPORT}
# fwmark_reflect gives it the mark of what it answers (ip-sysctl.rst), RFC 1812 (4.3.2.5) the TOS; no RFC says so of IPv6.
REPLY = {**LOCAL, "uidrange": UNKNOWN, "tos": {V4: TOS, V6: UNKNOWN}}
# What rules can tell of each packet.
PACKETS = {
    "TCP connect": {**LOCAL, "ipproto": TCP, **PORTS},
    "UDP sendto": {**LOCAL, "ipproto": UDP, **PORTS},
    "UDP connect": {**LOCAL, "ipproto": UDP, **PORTS},
    "raw": {**LOCAL, "ipproto": EXPERIMENT},
    "ping": {**LOCAL, "ipproto": ICMP},
    # raw(7) does not say whether the kernel looks into a header that it is given.
    "IP_HDRINCL": {**LOCAL, "ipproto": UNKNOWN, "sport": UNKNOWN, "dport": UNKNOWN},
    "forwarded TCP": {**FORWARDED, "ipproto": TCP, **PORTS},
    "forwarded UDP": {**FORWARDED, "ipproto": UDP, **PORTS},
    "forwarded ICMP": {**FORWARDED, "ipproto": ICMP},
    "forwarded fragment": {**FORWARDED, "ipproto": UDP},
    "SYN-ACK": {**LOCAL, "ipproto": TCP, **PORTS},
    "RST": {**REPLY, "ipproto": TCP, **PORTS, "tos": UNKNOWN},
    "echo reply": {**REPLY, "ipproto": ICMP},
    "port unreachable": {**REPLY, "ipproto": ICMP},
    # Tunnels have a mark and a TOS of their own, and no user.
    "ipip": {**LOCAL, "ipproto": IPIP, "uidrange": UNKNOWN},
    "ESP": {**LOCAL, "ipproto": ESP, "uidrange": UNKNOWN, "fwmark": UNKNOWN, "tos": UNKNOWN},
}

ONE = {
    "from all": {}, "from its address": {"from_": ROUTER}, "from its network": {"from_": NETWORK}, "from the client": {"from_": CLIENT},
    "from elsewhere": {"from_": ELSEWHERE}, "to its network": {"to": DESTINATIONS}, "to elsewhere": {"to": ELSEWHERE},
    "iif lo": {"iif": "lo"}, "iif to-client": {"iif": "to-client"}, "iif to-left": {"iif": "to-left"},
    "oif lo": {"oif": "lo"}, "oif to-left": {"oif": "to-left"}, "l3mdev": {"l3mdev": 1},
    "fwmark 7": {"fwmark": 7}, "fwmark 8": {"fwmark": 8}, "fwmark 0x107/0xff": {"fwmark": 0x107, "fwmask": 0xFF},
    "fwmark 6/0xe": {"fwmark": 6, "fwmask": 0xE}, "fwmark 0/0x8": {"fwmark": 0, "fwmask": 8},
    "uidrange 1000-1000": {"uidrange": (1000, 1000)}, "uidrange 0-999": {"uidrange": (0, 999)},
    "uidrange 1000-2000": {"uidrange": (1000, 2000)}, "uidrange 1001-2000": {"uidrange": (1001, 2000)},
    "tos 0x10": {"tos": 0x10}, "tos 0x08": {"tos": 0x08},
    "ipproto tcp": {"ipproto": TCP}, "ipproto udp": {"ipproto": UDP}, "ipproto icmp": {"ipproto": ICMP}, "ipproto esp": {"ipproto": ESP},
    "ipproto ipip": {"ipproto": IPIP}, "ipproto 253": {"ipproto": EXPERIMENT},
    "sport 4000": {"sport": (4000, 4000)}, "sport 3000-3999": {"sport": (3000, 3999)}, "sport 4000-4100": {"sport": (4000, 4100)},
    "dport 5000": {"dport": (5000, 5000)}, "dport 5001-6000": {"dport": (5001, 6000)}, "dport 4900-5000": {"dport": (4900, 5000)},
}
RULES = {
    **ONE,
    **{f"not {name}": {**ONE[name], "not_": True} for name in (
        "from its address", "to its network", "to elsewhere", "iif lo", "fwmark 7", "fwmark 8", "uidrange 1000-1000", "tos 0x08",
        "ipproto udp", "dport 5000")},
    **{" ".join(names): {word: value for name in names for word, value in ONE[name].items()} for names in (
        ("from its address", "dport 5000"), ("iif lo", "ipproto udp"), ("to its network", "fwmark 7"), ("to its network", "fwmark 8"),
        ("ipproto udp", "sport 4000", "dport 5000"), ("ipproto tcp", "dport 5001-6000"), ("iif to-client", "tos 0x10"),
        ("from its network", "uidrange 1000-1000", "iif lo"))},
}


def of(value, family):
    return value[family] if isinstance(value, dict) else value


def agrees(word, wanted, packet, family):
    """Whether a packet is as one selector wants it; None if no document says."""
    found = {"to": DESTINATIONS, "l3mdev": 0, **packet}.get(word)
    wanted, found = of(wanted, family), of(found, family)
    if found == UNKNOWN:
        return None
    if word == "from_":
        return wanted == found or wanted == NETWORK[family]
    if isinstance(wanted, tuple):
        return found is not None and wanted[0] <= found <= wanted[1]
    return wanted == found


def matches(words, packet, family):
    """A rule is for the packets that agree with all of its selectors, a negated one for all others."""
    words = dict(words)
    negated = words.pop("not_", False)
    if "fwmask" in words and packet["fwmark"] != UNKNOWN:
        mask = words.pop("fwmask")
        words["fwmark"], packet = words["fwmark"] & mask, {**packet, "fwmark": packet["fwmark"] & mask}
    words.pop("fwmask", None)
    each = [agrees(word, wanted, packet, family) for word, wanted in words.items()]
    together = False if False in each else None if None in each else True
    return together if together is None else together != negated


def cell(words, packet, family):
    matching = matches(words, packet, family)
    if matching is None:
        return Measured("no document says what this packet has there")
    return "table 100" if matching else "main"


def table_of(family):
    return Table(f"routing.rules-ipv{4 if family == V4 else 6}", "packet", "rule",
                 "ip-rule(8): a rule is for the packets that its selectors match",
                 {packet: {name: cell(words, of_packet, family) for name, words in RULES.items()} for packet, of_packet in PACKETS.items()})


TABLES = {family: table_of(family) for family in (V4, V6)}
WAYS = {"to-left": "main", "to-right": "table 100"}
OUTER = {V4: ("ipip", ["tos", f"{TOS:#x}"]), V6: ("ip6tnl", ["mode", "ip6ip6", "encaplimit", "none", "tclass", f"{TOS:#x}"])}
INNER = {V4: ("198.18.1.1/24", "198.18.1.2"), V6: ("2001:db8:d::1/64", "2001:db8:d::2")}


def destination(family, number):
    """One for each cell; a tunnel has the first one."""
    return f"203.0.113.{number}" if family == V4 else f"2001:db8:3::{number:x}"


def prepare(sender, packet):
    """Two devices, with a default route by each of the tables, and what a tunnel or ESP needs. Returns how to send the packet."""
    router, family = sender.router, sender.family
    sender.prepare()
    router.pin(NO_ICMP_LIMITS)
    # Without ARP nothing is asked for before a packet, and none that arrives is for the other end.
    router.run(["ip", "-batch", "-"], stdin="link set to-left arp off\nlink set to-right arp off\n")
    default = "0.0.0.0/0" if family == V4 else "::/0"
    routes.carry_out(router.namespace, [routes.route("add", default, dev=router.interfaces["left"].index),
                                        routes.route("add", default, dev=router.interfaces["right"].index, table=TABLE)])
    if packet == "ESP":
        sender.protect(destination(family, 1))
    elif packet == "ipip":
        kind, options = OUTER[family]
        address, behind = INNER[family]
        tunnel.add(router, "tunnel", kind, "local", sender.source, "remote", destination(family, 1), "fwmark", str(MARK), *options,
                   address=address)
        return lambda _to: sender.udp_unbound(behind, "tunnel")
    elif packet == "SYN-ACK":
        listener = sender.socket(socket.SOCK_STREAM)
        listener.listen(len(RULES))
    return {
        "TCP connect": sender.tcp, "UDP sendto": sender.udp, "UDP connect": sender.udp_connected, "raw": sender.raw, "ping": sender.ping,
        "IP_HDRINCL": sender.header_included, "forwarded TCP": sender.forwarded("tcp"), "forwarded UDP": sender.forwarded("udp"),
        "forwarded ICMP": sender.forwarded("icmp"), "forwarded fragment": sender.forwarded("fragment"),
        "SYN-ACK": sender.reply("SYN-ACK"), "RST": sender.reply("RST"), "echo reply": sender.reply("echo reply"),
        "port unreachable": sender.reply("port unreachable"), "ESP": sender.esp,
    }[packet]


def way_out(router, send, to):
    """The table that the packet to this destination was routed by."""
    with router.capture() as packets:
        send(to)

        def left():
            return [packet.interface for packet in packets.sent() if packet.destination == to and packet.interface in WAYS]

        try:
            interface, *_again = eventually("packets that leave the router", left, within=2)
        except ExpectationFailed:
            return "nothing"
    return WAYS[interface]


def check(net, family, row, table):
    sender = Origins(net["client"], net["router"], family)
    send = prepare(sender, row)
    for number, column in enumerate(table, 1):
        given = {word: NUMBERS.get((of(value, family), family), of(value, family)) if word == "ipproto" else of(value, family)
                 for word, value in RULES[column].items()}
        # A rule for l3mdev has no table of its own: ip-rule(8).
        given.update({} if "l3mdev" in given else {"table": TABLE}, priority=10)
        routes.carry_out(sender.router.namespace, [routes.rule(family, **given)])
        table.saw(way_out(sender.router, send, destination(family, 1 if row in ("ipip", "ESP") else number)))
        routes.carry_out(sender.router.namespace, [routes.rule(family, delete=True, **given)])


@pytest.mark.table(TABLES[V4])
@pytest.mark.parametrize("row", TABLES[V4].rows)
def test_ipv4_packets_are_routed_by_the_table_of_a_rule_that_matches_them(net, row, table):
    check(net, V4, row, table)


@pytest.mark.table(TABLES[V6])
@pytest.mark.parametrize("row", TABLES[V6].rows)
def test_ipv6_packets_are_routed_by_the_table_of_a_rule_that_matches_them(net, row, table):
    check(net, V6, row, table)
