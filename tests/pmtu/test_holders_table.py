"""Who holds a learned path MTU, and what becomes of it: changes of the routes and devices, and expiry.

Each cell has a destination, a route and a socket of its own.
"""

import socket

import pytest

from fixtures.table import LeftOut, Measured, Must, OneOf, Table
from fixtures.topologies import ROUTED
from netns.packets import pmtu

pytestmark = pytest.mark.topology(ROUTED)

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = {"IPv4": V4, "IPv6": V6}
LINK, OWN, LEARNED = 1500, 1450, 1300
EXPIRES = 600                               # mtu_expires (ip-sysctl.rst)
VRF_TABLE = 10
HOLDERS = ("route by a gateway", "route to a link", "route with an MTU", "route with a locked MTU", "default route", "multipath route",
           "nexthop object", "nexthop group", "route of a rule", "route of a VRF")
OBJECTS = ("nexthop object", "nexthop group")
NEXT_HOP = "an exception belongs to the next hop that it was learned for (include/net/ip_fib.h, ip6_fib.h)"
MAY_STAY = "an estimate may be too small until it expires (RFC 1191, 6.3; RFC 8201, 5.3)"
FITS = "no packet is larger than the MTU of the first hop (RFC 1191, 3; RFC 8201, 3)"


def events(family, holder):
    """What happens to a holder that has learned 1300, as commands of ip(8) where {n} is the number of the cell, and what a lookup finds
    then."""
    locked = holder == "route with a locked MTU" and family == V4
    lock = " locked" * ("locked" in holder)
    learned = f"{OWN} locked" if locked else f"{LEARNED}{lock} for {EXPIRES} s"
    base = f"{OWN}{lock}" if "MTU" in holder else f"{LINK}"
    other = str(LINK)                       # that of the default route, or of a route without an MTU
    table = {"route of a rule": " table {n}", "route of a VRF": f" table {VRF_TABLE}"}.get(holder, "")
    default = Must(other, NEXT_HOP)
    if holder == "route of a rule":
        default = OneOf((other, f"{LEARNED} for {EXPIRES} s"), "the error may also count for packets without the mark")
    found = {
        "nothing": ((), learned),
        "cache flushed": (("route flush cache" + table,), LeftOut("a dump names the exceptions of one path, which chance chooses")
                          if (family, holder) == (V6, "multipath route") else Must(base, "ip-route(8), flush")),
        "route replaced by itself": (("route replace {route}",), OneOf((learned, base), MAY_STAY)),
        "more specific route": (("route add {host} {hop}" + table,), OneOf((learned, other), NEXT_HOP)),
        "more specific route, other gateway": (("route add {host} {second hop}" + table,), Must(other, NEXT_HOP)),
        "more specific route, then deleted": (("route add {host} {second hop}" + table, "route del {host}" + table),
                                              Must(learned, NEXT_HOP)),
        "link MTU 1290": (("link set own{n} mtu 1290",), Measured("ip-route(8) does not say which counts") if lock else
                          OneOf(("1290", f"1290 for {EXPIRES} s"), FITS)),
        "link MTU 1400": (("link set own{n} mtu 1400",), Measured("ip-route(8) does not say which counts") if locked else learned),
        "link MTU 1600": (("link set own{n} mtu 1600",), learned),
        "link MTU 1300, then 1500": (("link set own{n} mtu 1300", "link set own{n} mtu 1500"), Measured("a larger estimate may be tried")),
        "link down": (("link set own{n} down",), default),
        "link down and up, route added": (("link set own{n} down", "link set own{n} up", "{again}"), Must(base, NEXT_HOP)),
        "link gone": (("link del own{n}",), default),
    }
    if holder in OBJECTS:
        found["route deleted and added"] = ("route del {route}", "route add {route}"), OneOf((learned, base), NEXT_HOP)
        found["route replaced, MTU 1400"] = ("route replace {route mtu}",), OneOf((learned, "1400"), NEXT_HOP)
        members = ["{n}"] if holder == "nexthop object" else ["{n}", "{member}"]
        found["nexthop replaced"] = (tuple(f"nexthop replace id {each} via {{second}} dev own{{n}} onlink" for each in members),
                                     Must(base, NEXT_HOP) if len(members) == 1 else
                                     OneOf((base, f"{base}, {LEARNED} for the socket"), MAY_STAY))
        found["nexthop deleted"] = tuple(f"nexthop del id {each}" for each in members), Must(other, NEXT_HOP)
    else:
        found["route deleted and added"] = ("route del {route}", "route add {route}"), Must(base, NEXT_HOP)
        found["route replaced, MTU 1400"] = ("route replace {route mtu}",), Must("1400", NEXT_HOP)
        if holder != "route to a link":
            found["route replaced, other gateway"] = ("route replace {route second}",), Must(base, NEXT_HOP)
    if holder == "route of a rule":
        found["rule deleted"] = ("rule del fwmark {n}",), default
        found["rule deleted and added"] = ("rule del fwmark {n}", "rule add fwmark {n} lookup {n}"), Must(learned, NEXT_HOP)
    return found


EVENT_TABLES = {name: Table(f"pmtu.events over {name}", "what holds a path MTU of 1300", "event", "RFC 1191, 6.3; RFC 8201, 5.3", {
    holder: {event: expected for event, (_commands, expected) in events(family, holder).items()}
    for holder in HOLDERS if holder != "default route"}) for name, family in FAMILIES.items()}


def check_events(destinations, family, row, table):
    cells = destinations(family, row, len(events(family, row)), own=True)
    for column in table:
        commands, _expected = events(family, row)[column]
        cells.next()
        cells.tell(LEARNED)
        waited = cells.happen(commands)
        table.saw(cells.saw() + waited)


@pytest.mark.table(EVENT_TABLES["IPv4"])
@pytest.mark.parametrize("row", EVENT_TABLES["IPv4"].rows)
def test_ipv4_path_mtu_lasts_as_long_as_its_holder(destinations, row, table):
    """What is left of it after the event; a device that goes does not wait for who learned."""
    check_events(destinations, V4, row, table)


@pytest.mark.table(EVENT_TABLES["IPv6"])
@pytest.mark.parametrize("row", EVENT_TABLES["IPv6"].rows)
def test_ipv6_path_mtu_lasts_as_long_as_its_holder(destinations, row, table):
    """As over IPv4."""
    check_events(destinations, V6, row, table)


# Seconds: exceptions expire after EXPIRY, the second news comes at AGAIN, and looks are at each of LOOKS.
EXPIRY, AGAIN, LOOKS = 4, 3, (3.5, 5, 8)
SECOND = {"no second news": None, "the same": LEARNED, "smaller": LEARNED - 10, "larger": LEARNED + 100, "larger than the link": 9000}


def alive(look, second):
    """RFC 1191, 6.3 and RFC 8201, 5.3: the time runs from the last decrease. Whether the same news, which lowers nothing, restart it
    is not said; nor does IPv6 have to keep a smaller estimate longer than the first one."""
    mtu = LEARNED - 10 if second == "smaller" else LEARNED
    if look < EXPIRY:
        return str(mtu)
    if look < AGAIN + EXPIRY and second in ("the same", "smaller"):
        return OneOf((str(mtu), str(LINK)), "RFC 8201, 5.3 is advice")
    return str(LINK)


LIFETIMES = {name: Table(f"pmtu.lifetimes over {name}", "what holds a path MTU of 1300", f"news after {AGAIN} s, time of the look",
                         "RFC 1191, 6.3; RFC 8201, 5.3; ip-sysctl.rst, mtu_expires", {
                             holder: {f"{second}, {look} s": alive(look, second) for look in LOOKS for second in SECOND}
                             for holder in HOLDERS if "locked" not in holder and holder != "route with an MTU"})
             for name in FAMILIES}


def check_lifetimes(net, destinations, family, row, table, clock):
    with pmtu.expiry(net["client"], family, EXPIRY):
        cells = destinations(family, row, len(SECOND))
        began = {}
        for second in SECOND:
            cells.next()
            began[second] = cells.kept()
            cells.tell(LEARNED)
        clock.sleep(AGAIN)
        for second, mtu in SECOND.items():
            cells.resume(began[second])
            if mtu is not None:
                cells.tell(mtu)
        at = AGAIN
        for column in table:
            second, _, look = column.rpartition(", ")
            seconds = float(look.partition(" ")[0])
            if seconds > at:
                clock.sleep(seconds - at)
                at = seconds
            cells.resume(began[second])
            table.saw(cells.saw().partition(" for ")[0])


@pytest.mark.table(LIFETIMES["IPv4"])
@pytest.mark.parametrize("row", LIFETIMES["IPv4"].rows)
def test_ipv4_path_mtu_expires(net, destinations, row, table, clock):
    """What a lookup finds before and after mtu_expires."""
    check_lifetimes(net, destinations, V4, row, table, clock)


@pytest.mark.table(LIFETIMES["IPv6"])
@pytest.mark.parametrize("row", LIFETIMES["IPv6"].rows)
def test_ipv6_path_mtu_expires(net, destinations, row, table, clock):
    """As over IPv4."""
    check_lifetimes(net, destinations, V6, row, table, clock)
