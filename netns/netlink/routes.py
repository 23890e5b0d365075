"""Routes, rules and addresses as rtnetlink messages, with any attribute absent, zero or given.

The words are those of ip-route(8), ip-rule(8) and ip-address(8); what is not said is as these tools send it.
Source: rtnetlink(7), include/uapi/linux/rtnetlink.h, fib_rules.h, if_addr.h.
"""

import ipaddress
import socket
import struct
from collections.abc import Sequence

from netns.hosts.namespace import NetworkNamespace
from netns.netlink import rtnl
from netns.netlink.message import attribute, attributes, dumped, message, nest

_REQUEST, _ACK, _ROOT_MATCH = 1, 4, 0x300
_REPLACE, _EXCL, _CREATE, _APPEND = 0x100, 0x200, 0x400, 0x800
_NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE, _GETROUTE, _NEWRULE, _DELRULE = 20, 21, 24, 25, 26, 32, 33
# The flags of ip-route(8)'s commands.
OPERATIONS = {"add": _CREATE | _EXCL, "replace": _CREATE | _REPLACE, "change": _REPLACE, "append": _CREATE | _APPEND,
              "prepend": _CREATE, "delete": 0}
TYPES = {"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6, "unreachable": 7, "prohibit": 8,
         "throw": 9}
METRICS = {"lock": 1, "mtu": 2, "window": 3, "rtt": 4, "rttvar": 5, "ssthresh": 6, "cwnd": 7, "advmss": 8, "reordering": 9,
           "hoplimit": 10, "initcwnd": 11, "features": 12, "rto_min": 13, "initrwnd": 14, "quickack": 15, "fastopen_no_cookie": 17}
_ROUTE = struct.Struct("=8BI")
_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _FLOW, _TABLE, _PREF, _NH_ID = 1, 4, 5, 6, 7, 8, 11, 15, 20, 30
_BOOT = 3
_GLOBAL, _LINK, _NOWHERE = 0, 253, 255
_ONLINK = 4
# Of an integer: attribute and size.
_NUMBERS = {"dev": (_OIF, 4), "metric": (_PRIORITY, 4), "realm": (_FLOW, 4), "pref": (_PREF, 1), "nhid": (_NH_ID, 4)}
_ADDRESSES = {"via": _GATEWAY, "src": _PREFSRC}


def route(operation: str, to: str, **words: object) -> bytes:
    """A request of OPERATIONS about the route to this prefix. `words` may have type, tos, table, protocol, scope, metric, dev (an index),
    via, src, realm, pref, nhid and each of METRICS: numbers, but for type and addresses."""
    network, delete = ipaddress.ip_network(to), operation == "delete"
    kind = words.get("type", "" if delete else "unicast")
    scope = words.get("scope", _default_scope(network.version, kind, delete, "via" in words or "nhid" in words))
    header = _ROUTE.pack(_family(network), network.prefixlen, 0, words.get("tos", 0), 0, words.get("protocol", 0 if delete else _BOOT),
                         scope, TYPES.get(kind, 0), _ONLINK if words.get("onlink") else 0)
    metrics = [_number(METRICS[word], value, 4) for word, value in words.items() if word in METRICS]
    parts = [attribute(_DST, network.network_address.packed), _number(_TABLE, words.get("table", 254), 4),
             *(_number(_NUMBERS[word][0], value, _NUMBERS[word][1]) for word, value in words.items() if word in _NUMBERS),
             *(attribute(_ADDRESSES[word], ipaddress.ip_address(value).packed) for word, value in words.items() if word in _ADDRESSES),
             *([nest(_METRICS, *metrics)] if metrics else [])]
    return message(_DELROUTE if delete else _NEWROUTE, _REQUEST | _ACK | OPERATIONS[operation], header + b"".join(parts))


def _default_scope(version: int, kind: str, delete: bool, through: bool) -> int:
    """ip-route(8): global for gatewayed unicast routes, link for direct ones; a deletion asks for none."""
    if version == 6:
        return _GLOBAL
    if kind in ("", "unicast"):
        return _NOWHERE if delete else _GLOBAL if through else _LINK
    return _GLOBAL


def shown(namespace: NetworkNamespace, family: int, table: int = 254) -> list[dict]:
    """The table's routes in the kernel's order: `to`, and the words of route() that the kernel reports. Raises OSError."""
    with namespace.entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(message(_GETROUTE, _REQUEST | _ROOT_MATCH, _ROUTE.pack(family, *[0] * 8)))
        routes = [_words(body) for body in dumped(netlink)]
    return [each for each in routes if each["table"] == table]


def _words(body: bytes) -> dict:
    family, length, _source, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(body)
    found = dict(attributes(body, _ROUTE.size))
    to = ipaddress.ip_network((found.get(_DST, bytes(4 if family == socket.AF_INET else 16)), length))
    words = {"to": str(to), "tos": tos, "table": int.from_bytes(found.get(_TABLE, bytes([table])), "little"), "protocol": protocol,
             "scope": scope, "type": next((name for name, number in TYPES.items() if number == kind), str(kind)),
             "onlink": bool(flags & _ONLINK)}
    words.update((word, int.from_bytes(found[number], "little")) for word, (number, _size) in _NUMBERS.items() if number in found)
    words.update((word, str(ipaddress.ip_address(found[number]))) for word, number in _ADDRESSES.items() if number in found)
    metrics = dict(attributes(found.get(_METRICS, b"")))
    words.update((word, int.from_bytes(metrics[number], "little")) for word, number in METRICS.items() if number in metrics)
    return words


_RULE = struct.Struct("=8BI")
ACTIONS = {"table": 1, "goto": 2, "nop": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8}
_INVERT = 2
# Attributes of fib_rules.h by the words of ip-rule(8): the strings, the numbers with their size, and the ranges with the size of an end.
_RULE_NAMES = {"iif": 3, "oif": 17}
_RULE_NUMBERS = {"goto": (4, 4), "priority": (6, 4), "fwmark": (10, 4), "suppress_ifgroup": (13, 4), "suppress_prefixlength": (14, 4),
                 "table": (15, 4), "fwmask": (16, 4), "l3mdev": (19, 1), "protocol": (21, 1), "ipproto": (22, 1)}
_RULE_RANGES = {"uidrange": (20, 4), "sport": (23, 2), "dport": (24, 2)}


def rule(family: int, action: str = "table", delete: bool = False, **words: object) -> bytes:
    """A request for a rule with one of ACTIONS. `words` may have from_, to (prefixes), tos, iif, oif (names), fwmark, fwmask, uidrange,
    sport, dport (both ends), ipproto, l3mdev, suppress_prefixlength, suppress_ifgroup, priority, table, goto and not_."""
    prefixes = {2: words.get("from_"), 1: words.get("to")}
    networks = {number: ipaddress.ip_network(prefix) for number, prefix in prefixes.items() if prefix}
    lengths = [networks[number].prefixlen if number in networks else 0 for number in (1, 2)]
    header = _RULE.pack(family, *lengths, words.get("tos", 0), 0, 0, 0, ACTIONS[action], _INVERT if words.get("not_") else 0)
    parts = [attribute(number, network.network_address.packed) for number, network in networks.items() if network.prefixlen]
    for word, value in words.items():
        if word in _RULE_NAMES:
            parts.append(attribute(_RULE_NAMES[word], value.encode() + b"\0"))
        elif word in _RULE_NUMBERS:
            parts.append(_number(_RULE_NUMBERS[word][0], value, _RULE_NUMBERS[word][1]))
        elif word in _RULE_RANGES:
            number, size = _RULE_RANGES[word]
            parts.append(attribute(number, b"".join(end.to_bytes(size, "little") for end in value)))
    flags = _REQUEST | _ACK | (0 if delete else _CREATE | _EXCL)
    return message(_DELRULE if delete else _NEWRULE, flags, header + b"".join(parts))


_ADDRESS = struct.Struct("=4BI")
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
NODAD, NOPREFIXROUTE = 0x02, 0x200
_FOREVER = 0xFFFFFFFF


def address(index: int, local: str, flags: int = NODAD, preferred: int = _FOREVER, scope: int = _GLOBAL, delete: bool = False) -> bytes:
    """Add an address with its prefix length to an interface, or delete it; `preferred` is its preferred lifetime in seconds."""
    own = ipaddress.ip_interface(local)
    header = _ADDRESS.pack(_family(own), own.network.prefixlen, 0, scope, index)
    parts = [attribute(_IFA_LOCAL, own.ip.packed), attribute(_IFA_ADDRESS, own.ip.packed)]
    if not delete:
        parts += [_number(_IFA_FLAGS, flags, 4), attribute(_IFA_CACHEINFO, struct.pack("=4I", preferred, _FOREVER, 0, 0))]
    return message(_DELADDR if delete else _NEWADDR, _REQUEST | _ACK | (0 if delete else _CREATE | _EXCL), header + b"".join(parts))


def _number(kind: int, value: int, size: int) -> bytes:
    return attribute(kind, (value % 2**(8 * size)).to_bytes(size, "little"))


def _family(address_: ipaddress.IPv4Network | ipaddress.IPv6Network | ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> int:
    return socket.AF_INET if address_.version == 4 else socket.AF_INET6


def outcomes(namespace: NetworkNamespace, requests: Sequence[bytes]) -> list[int]:
    """Carry out requests in order: the errno of each, 0 for success."""
    return [number for number, _words_ in rtnl.outcomes(namespace, socket.NETLINK_ROUTE, requests)]


def carry_out(namespace: NetworkNamespace, requests: Sequence[bytes]) -> None:
    """Carry out requests in order. Raises OSError for the first that failed; see rtnl.request()."""
    rtnl.exchange(namespace, socket.NETLINK_ROUTE, requests, [f"request {number}" for number in range(len(requests))])
