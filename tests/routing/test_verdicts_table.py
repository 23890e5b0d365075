"""What a route or a rule says of a packet of each origin, and which of several decides: the first rule that matches and whose table has a
route, and in it the longest prefix and the lowest metric. Source: ip-rule(8), ip-route(8), RFC 1812 (5.2.4.3), RFC 4443 (3.1).
"""

import ipaddress
import socket
from dataclasses import dataclass

import pytest

from fixtures.table import Measured, Must, OneOf, Table
from fixtures.topologies import TWO_WAYS
from netns import ExpectationFailed, eventually
from netns.attempt import errno_of
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.netlink import routes
from netns.traffic.origins import BEHIND_ESP, SPORT, Origins, request

V4, V6 = socket.AF_INET, socket.AF_INET6
pytestmark = pytest.mark.topology(TWO_WAYS)

MAIN, OWN = 254, 0
WAYS = {"to-left": "left", "to-right": "right"}


@dataclass(frozen=True)
class VerdictCase:
    """Routes (table, type or way out, and more words) and rules (action and words) for one destination, and their `verdict`."""

    verdict: str
    routes: tuple = ()
    rules: tuple = ()


LEFT, OWN_TABLE = (MAIN, "left", {}), ("table", {"table": OWN})
CASES = {
    "unicast": VerdictCase("left", (LEFT,)),
    "no route": VerdictCase("no route"),
    **{kind: VerdictCase("no route" if kind == "throw" else kind, ((MAIN, kind, {}),))
       for kind in ("blackhole", "unreachable", "prohibit", "throw")},
    # ip-rule(8): "unreachable" generates a 'Network is unreachable' error.
    **{f"rule {kind}": VerdictCase("no route" if kind == "unreachable" else kind, (LEFT,), ((kind, {}),))
       for kind in ("blackhole", "unreachable", "prohibit")},
    **{f"{kind} in the first table": VerdictCase(kind, ((OWN, kind, {}), LEFT), (OWN_TABLE,))
       for kind in ("right", "blackhole", "unreachable", "prohibit")},
    "throw in the first table": VerdictCase("left", ((OWN, "throw", {}), LEFT), (OWN_TABLE,)),
    "first table empty": VerdictCase("left", (LEFT,), (OWN_TABLE,)),
    "throw, then prohibit": VerdictCase("prohibit", ((OWN, "throw", {}), LEFT), (OWN_TABLE, ("prohibit", {}))),
    "unicast, then prohibit": VerdictCase("right", ((OWN, "right", {}), LEFT), (OWN_TABLE, ("prohibit", {}))),
    "default route suppressed": VerdictCase("left", ((OWN, "right", {"default": True}), LEFT),
                                     (("table", {"table": OWN, "suppress_prefixlength": 0}),)),
    "prefix not suppressed": VerdictCase("right", ((OWN, "right", {}), LEFT), (("table", {"table": OWN, "suppress_prefixlength": 0}),)),
    "goto over prohibit": VerdictCase("left", (LEFT,), (("goto", {"goto": 2}), ("prohibit", {}), ("nop", {}))),
    "goto nowhere": VerdictCase("prohibit", (LEFT,), (("goto", {"goto": 7}), ("prohibit", {}))),
    "nop": VerdictCase("left", (LEFT,), (("nop", {}),)),
    "longer prefix prohibits": VerdictCase("prohibit", (LEFT, (MAIN, "prohibit", {"longer": True}))),
    "longer prefix is unicast": VerdictCase("left", ((MAIN, "prohibit", {}), (MAIN, "left", {"longer": True}))),
    "lower metric prohibits": VerdictCase("prohibit", ((MAIN, "left", {"metric": 10}), (MAIN, "prohibit", {"metric": 5}))),
    "lower metric is unicast": VerdictCase("left", ((MAIN, "left", {"metric": 5}), (MAIN, "prohibit", {"metric": 10}))),
}
SENT = ("left", "right")
ERRNOS = {"no route": "ENETUNREACH", "blackhole": "EINVAL", "unreachable": "EHOSTUNREACH", "prohibit": "EACCES"}
ICMP = {
    V4: {"no route": "ICMP 3/0", "unreachable": "ICMP 3/1", "prohibit": "ICMP 3/13", "blackhole": "discarded"},
    V6: {"no route": "ICMP 1/0", "prohibit": "ICMP 1/1", "blackhole": "discarded",
         "unreachable": OneOf(("ICMP 1/0", "ICMP 1/3", "ICMP 1/6"),
                              "ip-route(8) says host unreachable, which is 1/3; RFC 4443 (3.1) has 1/6 for reject routes, and 1/0 and 1/1 "
                              "for routers that do not tell them apart")},
}
SOCKETS = ("TCP connect", "UDP sendto", "UDP sendto, unbound", "UDP connect", "raw", "ping", "IP_HDRINCL")
FORWARDED = ("tcp", "udp", "icmp", "fragment")
REPLIES = ("SYN-ACK", "RST", "echo reply", "port unreachable")
IPVS = {"NAT": "-m", "routing": "-g", "tunnel": "-i"}
ORIGINS = (*SOCKETS, *(f"forwarded {what}" for what in FORWARDED), *REPLIES, "ipip", "ESP", *(f"IPVS {method}" for method in IPVS))
OUTER = {V4: ("ipip", ""), V6: ("ip6tnl", "mode ip6ip6 encaplimit none")}
LATER = {V4: "198.18.9.0/24", V6: "2001:db8:9::/64"}


def cell(origin, verdict, family):
    if verdict in SENT:
        return verdict
    if origin in SOCKETS:
        return ERRNOS[verdict]
    if (origin, family) == ("forwarded fragment", V4):
        return Must("discarded", "RFC 1812 (4.3.2.7): no error is sent about a fragment other than the first")
    if origin.startswith("forwarded"):
        return ICMP[family][verdict]
    if origin in REPLIES:
        return "discarded"
    return Measured("no document says what the sender of a packet gets whose new header has no route")


def table_of(family):
    return Table(f"routing.verdicts-ipv{4 if family == V4 else 6}", "packet", "route or rule",
                 "ip-route(8), ip-rule(8); codes: RFC 1812 (5.2.7.1), RFC 4443 (3.1)",
                 {origin: {name: cell(origin, case.verdict, family) for name, case in CASES.items()} for origin in ORIGINS})


TABLES = {family: table_of(family) for family in (V4, V6)}


def network(family, name):
    """The destinations of a case."""
    number = list(CASES).index(name)
    return ipaddress.ip_network(f"203.0.113.{8 * number}/29" if family == V4 else f"2001:db8:3:{number:x}::/64")


def destination(family, name):
    return str(network(family, name)[2])


def requests(sender, name):
    """The case's routes and rules, with a table of its own."""
    family, case, number = sender.family, CASES[name], list(CASES).index(name)
    to = network(family, name)
    for table, way, words in case.routes:
        words = dict(words)
        prefix = ("0.0.0.0/0" if family == V4 else "::/0") if words.pop("default", False) else \
            str(next(to.subnets(1))) if words.pop("longer", False) else str(to)
        kind = {"dev": sender.router.interfaces[way].index} if way in SENT else {"type": way}
        yield routes.route("add", prefix, table=table or 100 + number, **kind, **words)
    for position, (action, words) in enumerate(case.rules):
        words = {**words, **({"table": 100 + number} if action == "table" else {}),
                 **({"goto": 1000 + 10 * number + words["goto"]} if action == "goto" else {})}
        yield routes.rule(family, action, to=str(to), priority=1000 + 10 * number + position, **words)


def prepare(sender, origin):
    """All cases, and what this origin needs. Returns how to send a packet for a case to a destination, by default the case's."""
    router, family = sender.router, sender.family
    router.pin({**NO_ICMP_LIMITS, "net.ipv4.ping_group_range": "0 0"})
    # Without ARP nothing is asked for before a packet, and none that arrives is for the other end.
    router.run(["ip", "-batch", "-"], stdin="link set to-left arp off\nlink set to-right arp off\n")
    routes.carry_out(router.namespace, [routes.route("add", LATER[family], dev=router.interfaces["left"].index)])
    routes.carry_out(router.namespace, [request_ for name in CASES for request_ in requests(sender, name)])
    # A source for each case: a sender gets six IPv4 errors about routes at once, and then one in a second (ip_error()).
    behind = ipaddress.ip_network("198.51.100.0/24" if family == V4 else "2001:db8:4::/64")
    routes.carry_out(router.namespace, [routes.route("add", str(behind), via=sender.of_client, dev=router.interfaces["client"].index)])
    if origin in ("ipip", "ESP"):
        return (_tunnels if origin == "ipip" else _policies)(sender)
    if origin.startswith("IPVS"):
        return _services(sender, IPVS[origin.split()[1]])
    if origin == "SYN-ACK":
        sender.socket(socket.SOCK_STREAM).listen(len(CASES) * 2)
    if origin.startswith("forwarded"):
        return lambda name, to: sender.forwarded(origin.split()[1], str(behind[1 + list(CASES).index(name)]))(to)
    sends = {"TCP connect": sender.tcp, "UDP sendto": sender.udp, "UDP sendto, unbound": sender.udp_unbound,
             "UDP connect": sender.udp_connected, "raw": sender.raw, "ping": sender.ping, "IP_HDRINCL": sender.header_included,
             **{what: sender.reply(what) for what in REPLIES}}
    return lambda _name, to: sends[origin](to)


def _tunnels(sender):
    """One to each case's destination; the other end of its inner network has a 2 where the router has a 1."""
    family, router = sender.family, sender.router
    kind, options = OUTER[family]
    inner = {name: f"198.18.{100 + number}.1/24" if family == V4 else f"2001:db8:{100 + number}::1/64" for number, name in enumerate(CASES)}
    router.run(["ip", "-batch", "-"], stdin="".join(
        f"link add tunnel{number} up type {kind} local {sender.source} remote {destination(family, name)} {options}\n"
        f"address add {inner[name]} dev tunnel{number} {'nodad' if family == V6 else ''}\n" for number, name in enumerate(CASES)))
    for address in inner.values():
        router.await_address(address)
    return lambda name, _to: sender.udp_unbound(inner[name].replace("1/24", "2").replace("1/64", "2"))


def _policies(sender):
    base = ipaddress.ip_address(BEHIND_ESP[sender.family])
    behind = {name: str(base + number) for number, name in enumerate(CASES)}
    routes.carry_out(sender.router.namespace, [
        routes.route("add", f"{to}/{32 if sender.family == V4 else 128}", dev=sender.router.interfaces["left"].index)
        for to in behind.values()])
    for number, name in enumerate(CASES):
        sender.protect(destination(sender.family, name), behind[name], 0x1001 + number)
    return lambda name, _to: sender.udp(behind[name])


def virtual(family, name):
    """The address of a case's service."""
    number = 1 + list(CASES).index(name)
    return f"198.18.4.{number}" if family == V4 else f"2001:db8:a::{number:x}"


def _services(sender, method):
    lines, family = [], sender.family
    for name in CASES:
        ends = virtual(family, name), destination(family, name)
        at, real = (f"[{each}]:{SPORT}" if family == V6 else f"{each}:{SPORT}" for each in ends)
        lines += [f"-A -t {at} -s rr", f"-a -t {at} -r {real} {method}"]
    sender.router.run(["ipvsadm", "--restore"], stdin="\n".join(lines) + "\n")
    routes.carry_out(sender.router.namespace, [
        routes.address(1, f"{virtual(family, name)}/{32 if family == V4 else 128}") for name in CASES])
    sender.router.await_address(virtual(family, name))
    return lambda name, _to: sender.inject(request(virtual(family, name), sender.of_client, "SYN-ACK"), virtual(family, name))


def outcome(sender, send, name, later):
    """What became of the case's packet: the way out, the errno that the sender got, the ICMP error, or nothing, once a packet to a unicast
    route that was sent after it has left; `later` is where to, unless the packet has no destination but that of its case."""
    family = sender.family
    own, others = ({destination(family, case), virtual(family, case), later} for case in (name, "unicast"))
    own -= {later}
    with sender.router.capture() as packets:
        refused = errno_of(send, name, destination(family, name))
        if refused:
            return refused
        if not _ways(packets, own):
            send("unicast", later)
            try:
                eventually("packets that leave the router", lambda: bool(_ways(packets, own | others)), within=5)
            except ExpectationFailed:
                return "nothing, and nothing sent later"
    errors = [f"ICMP {packet.icmp[0]}/{packet.icmp[1]}" for packet in packets.sent()
              if packet.interface == "to-client" and packet.icmp and packet.icmp[0] in (1, 3)]
    return ", ".join([*_ways(packets, own)[:1], *errors]) or "discarded"


def _ways(packets, destinations):
    return [WAYS[packet.interface] for packet in packets.sent() if packet.interface in WAYS and packet.destination in destinations]


def check(net, family, row, table):
    sender = Origins(net["client"], net["router"], family)
    send = prepare(sender, row)
    for number, column in enumerate(table):
        table.saw(outcome(sender, send, column, f"198.18.9.{number}" if family == V4 else f"2001:db8:9::{number:x}"))


@pytest.mark.table(TABLES[V4])
@pytest.mark.parametrize("row", TABLES[V4].rows)
def test_first_ipv4_rule_whose_table_has_a_route_decides_what_becomes_of_a_packet(net, row, table):
    check(net, V4, row, table)


@pytest.mark.table(TABLES[V6])
@pytest.mark.parametrize("row", TABLES[V6].rows)
def test_first_ipv6_rule_whose_table_has_a_route_decides_what_becomes_of_a_packet(net, row, table):
    check(net, V6, row, table)
