"""Which source address a packet gets in a VRF: what the outgoing interface has x what the VRF device and another interface of the VRF
have. Source: RFC 6724, 5, rule 2: a scope that suffices; RFC 4291, 2.5.3: ::1 is on no wire; Documentation/networking/vrf.rst."""

import itertools
import socket

import pytest

from fixtures.table import Measured, OneOf, Table
from fixtures.topologies import ROUTED
from netns.attempt import errno_of

pytestmark = pytest.mark.topology(ROUTED)

V6 = socket.AF_INET6
DESTINATIONS = {"global": "2001:db8:2::1", "ULA": "fd00:7::1", "link-local": "fe80::99"}
LINK_LOCAL = "fe80::200:5eff:fe00:5301"     # that of the outgoing interface
# By place and kind.
OWN = {"its link-local address": "", "no address": "", "a global address": "2001:db8:1::1/64"}
VRF = {"nothing": "", "loopback": "::1/128", "link-local": "fe80::5/64", "global": "2001:db8:a::1/128", "ULA": "fd00:a::1/128"}
OTHER = {"nothing": "", "link-local": "fe80::6/64", "global": "2001:db8:b::1/128", "ULA": "fd00:b::1/128"}
GLOBAL = ("a global address", "global", "ULA")
CELLS = {f"interface {own}, VRF {vrf}, other {other}": (own, vrf, other) for own, vrf, other in itertools.product(OWN, VRF, OTHER)}


def expected(to, own, vrf, other):
    if to == "link-local":
        return "interface's link-local" if own != "no address" else Measured("RFC 4007, 5: the zone has no address of this host")
    if own == "a global address":
        return "interface's global"
    # RFC 6724, 3.1: unique local addresses are of global scope.
    candidates = [f"{name}'s {kind}" for name, kind in (("VRF", vrf), ("other", other)) if kind in GLOBAL]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        return OneOf(tuple(candidates), "both suffice; of interfaces that are not the outgoing one vrf.rst prefers none")
    return Measured("no address of the VRF suffices")


TABLE = Table("routing.sources-vrf", "destination", "addresses", "RFC 6724, 5, rule 2; vrf.rst", {
    to: {column: expected(to, *kinds) for column, kinds in CELLS.items()} for to in DESTINATIONS})


def commands(own, vrf, other, word):
    """Commands of ip(8) that make or delete the addresses."""
    for device, address in (("to-router", OWN[own]), ("vrf-red", VRF[vrf]), ("lender", OTHER[other])):
        if address:
            yield f"address {word} {address} dev {device} {'nodad' if word == 'add' else ''}"


def found(address):
    """Whose it is, and of which kind."""
    address = address.partition("%")[0]
    for name, kinds in (("VRF", VRF), ("other", OTHER)):
        for kind, own in kinds.items():
            if own and own.partition("/")[0] == address:
                return f"{name}'s {kind}"
    known = {"2001:db8:1::1": "interface's global", LINK_LOCAL: "interface's link-local"}
    return known.get(address, "another link-local" if address.startswith("fe80") else address)


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_source_address_in_a_vrf_has_a_sufficient_scope(net, row, table):
    """Of the interface if it has one, else of the VRF device or of another interface of the VRF."""
    client = net["client"]
    client.run(["ip", "link", "add", "vrf-red", "type", "vrf", "table", "10"])
    client.run(["ip", "-batch", "-"], stdin="\n".join([
        "link add lender type dummy", "link set lender addrgenmode none", "link set vrf-red addrgenmode none",
        "link set lender master vrf-red up", "link set vrf-red up",
        "link set to-router master vrf-red", "address flush dev to-router scope global",
        *(f"route add {DESTINATIONS[to]} dev to-router vrf vrf-red" for to in ("global", "ULA"))]) + "\n")
    index = client.interfaces["router"].index
    for column in table:
        own, vrf, other = CELLS[column]
        without = own == "no address"
        client.run(["ip", "-6", "-batch", "-"], stdin="\n".join([
            *commands(own, vrf, other, "add"), *([f"address del {LINK_LOCAL}/64 dev to-router"] if without else [])]) + "\n")
        with client.socket(V6, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"vrf-red" if row != "link-local" else b"to-router")
            error = errno_of(sock.connect, (DESTINATIONS[row], 4000, 0, index if row == "link-local" else 0))
            table.saw(error if isinstance(error, str) else found(sock.getsockname()[0]))
        client.run(["ip", "-6", "-batch", "-"], stdin="\n".join([
            *commands(own, vrf, other, "del"), *([f"address add {LINK_LOCAL}/64 dev to-router nodad"] if without else [])]) + "\n")
