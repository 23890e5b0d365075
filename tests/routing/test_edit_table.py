"""Add, replace, change, append, prepend and delete a route where another with the same prefix exists, each attribute absent, zero and
given: which routes `ip route show` has afterwards. Source: ip-route(8), rtnetlink(7)."""

import socket

import pytest

from fixtures.table import Measured, Must, Table
from fixtures.topologies import PAIR
from netns.attempt import errno_name
from netns.netlink import routes
from netns.netlink.message import attribute, message

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = {V4: "ipv4", V6: "ipv6"}
pytestmark = pytest.mark.topology(PAIR)

# By attribute: the value that is zero, None where there is none; two others; and what a route without the attribute shows.
VALUES = {
    V4: {
        "metric": (0, 7, 9, "0"), "tos": (0, 0x10, 0x08, "0"), "protocol": (0, 4, 188, "3"), "scope": (0, 254, 200, "253"),
        "src": ("0.0.0.0", "192.0.2.1", "198.51.100.1", "none"), "realm": (0, 5, 6, "none"),
        "mtu": (0, 1300, 1400, "none"), "advmss": (0, 1000, 1100, "none"), "hoplimit": (0, 10, 20, "none"),
        "initcwnd": (0, 4, 5, "none"),
        "type": (None, "blackhole", "prohibit", "unicast"), "via": (None, "192.0.2.2", "192.0.2.3", "none"),
        "nhid": (None, 1, 2, "none"),
    },
    V6: {
        "metric": (0, 7, 9, "1024"), "protocol": (0, 4, 188, "3"), "src": ("::", "2001:db8:1::1", "2001:db8:2::1", "none"),
        "pref": (0, 1, 3, "0"),
        "mtu": (0, 1300, 1400, "none"), "advmss": (0, 1000, 1100, "none"), "hoplimit": (0, 10, 20, "none"),
        "initcwnd": (0, 4, 5, "none"),
        "type": (None, "blackhole", "prohibit", "unicast"), "via": (None, "2001:db8:1::2", "2001:db8:1::3", "none"),
        "nhid": (None, 1, 2, "none"),
    },
}
# These identify a route, with its prefix and table: ip-route(8), "Key values".
KEYS = {"metric", "tos"}
PAIRS = (("absent", "absent"), ("absent", "zero"), ("absent", "given"), ("zero", "absent"), ("zero", "given"), ("given", "absent"),
         ("given", "zero"), ("given", "given"), ("given", "other"))
# A zero in these says that the attribute is not given: RT_SCOPE_UNIVERSE is a scope, RTPROT_UNSPEC no protocol (rtnetlink(7)).
ZERO_IS_A_VALUE = {"metric", "tos", "scope"}


def shown(family, name, state):
    """What a route shows of the attribute."""
    zero, given, other, default = VALUES[family][name]
    if state == "zero":
        return str(zero) if name == "scope" or (name, family) == ("protocol", V4) else default
    return {"absent": default, "given": str(given), "other": str(other)}[state]


def after(family, name, operation, existing, new):
    """What the operation gives, and which routes are left."""
    old, now = shown(family, name, existing), shown(family, name, new)
    key = name in KEYS

    def left(result, *values):
        return f"{result}; {name} {', '.join(values)}" if values else f"{result}; no route"

    if name == "protocol" and "zero" in (existing, new):
        return Measured("rtnetlink(7) calls 0 unknown, and does not say whether a route may have it")
    if operation == "delete":
        return deletion(family, name, existing, new, left)
    if key and old != now:
        both = sorted((old, now), key=int, reverse=name == "tos")
        return left("ENOENT", old) if operation == "change" else Must(left("done", *both), "ip-route(8): the key has another value")
    if operation == "add":
        return left("EEXIST", old)
    if operation in ("replace", "change"):
        return left("done", now)
    if old == now:
        return Measured("no document says whether a table holds one route twice")
    if family == V6:
        return Measured("no document says which routes of one metric are next hops of one IPv6 route")
    return left("done", *((old, now) if operation == "append" else (now, old)))


def deletion(family, name, existing, new, left):
    """ip-route(8): key values select the route, and optional attributes that are present have to coincide."""
    old, now = shown(family, name, existing), shown(family, name, new)
    if new == "absent" and name != "tos" or old == now:
        return left("done")
    if new == "zero" and (name not in ZERO_IS_A_VALUE or name == "metric"):
        return Measured("no document says whether zero is a value here or the same as none")
    return left("ESRCH", old)


def cells(family, operations):
    """Rows are attributes."""
    return {f"{FAMILIES[family]} {name}": {
        f"{operation} {new}, had {existing}": after(family, name, operation, existing, new) for operation in operations
        for existing, new in PAIRS if values[0] is not None or "zero" not in (existing, new)} for name, values in VALUES[family].items()}


def table_of(name, *operations):
    return Table(name, "attribute", "operation", "ip-route(8), on add, change, replace, append, prepend and delete",
                 {**cells(V4, operations), **cells(V6, operations)})


EDITS = table_of("routing.edits", "add", "replace", "change", "append", "prepend")
DELETIONS = table_of("routing.deletions", "delete")


def words(family, name, state, index):
    """The attribute as asked for, and what else the route needs."""
    zero, given, other, _default = VALUES[family][name]
    own = {} if state == "absent" else {name: {"zero": zero, "given": given, "other": other}[state]}
    return own if name in ("type", "nhid") and own else {"dev": index, **own}


def prefix(family, number):
    return f"198.18.{number}.0/24" if family == V4 else f"2001:db8:{0x100 + number:x}::/48"


def nexthop(family, number, index):
    """struct nhmsg; NHA_ID and NHA_OIF."""
    body = bytes([family, 0, 4, 0]) + bytes(4) + attribute(1, number.to_bytes(4, "little")) + attribute(5, index.to_bytes(4, "little"))
    return message(104, 0x605, body)


def edited(client, row, columns):
    """By column, what its operation gave and which routes are left: all in one exchange, each with a prefix of its own."""
    version, name = row.split()
    family = V4 if version == FAMILIES[V4] else V6
    index = client.interfaces["left"].index
    asked = [column.replace(", had", "").split() for column in columns]
    requests = [nexthop(family, number, index) for number in (1, 2)] if name == "nhid" else []
    requests += [routes.route("add", prefix(family, number), **words(family, name, existing, index))
                 for number, (_operation, _new, existing) in enumerate(asked)]
    routes.carry_out(client.namespace, requests)
    results = routes.outcomes(client.namespace, [
        routes.route(operation, prefix(family, number),
                     **{word: value for word, value in words(family, name, new, index).items() if operation != "delete" or word == name})
        for number, (operation, new, _existing) in enumerate(asked)])
    found = routes.shown(client.namespace, family)
    for number, (column, result) in enumerate(zip(columns, results)):
        values = [str(each.get(name, VALUES[family][name][3])) for each in found if each["to"] == prefix(family, number)]
        yield column, f"{errno_name(result) or 'done'}; " + (f"{name} {', '.join(values)}" if values else "no route")


@pytest.mark.table(EDITS)
@pytest.mark.parametrize("row", EDITS.rows)
def test_route_is_added_or_replaced_by_its_key(net, row, table):
    """Prefix, metric and table are its key, and tos over IPv4. A cell is the errno, and the routes to its prefix in their order."""
    seen = dict(edited(net["client"], row, EDITS.columns(row)))
    for column in table:
        table.saw(seen[column])


@pytest.mark.table(DELETIONS)
@pytest.mark.parametrize("row", DELETIONS.rows)
def test_route_is_deleted_by_its_key_if_what_else_is_given_coincides(net, row, table):
    """ip-route(8): "If no route with the given key and attributes was found, ip route del fails"."""
    seen = dict(edited(net["client"], row, DELETIONS.columns(row)))
    for column in table:
        table.saw(seen[column])
