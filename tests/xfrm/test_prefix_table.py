"""Prefix lengths in selectors of SAs and policies, where the selector has a family and where it leaves it to the SA."""

import socket

import pytest
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST

from fixtures.table import Measured, Table
from fixtures.topologies import LAN
from netns.attempt import errno_of
from netns.netlink import rtnl, xfrm, xfrm_wire as wire
from netns.netlink.message import message
from netns.netlink.xfrm import SA, Policy, Selector, Template

pytestmark = pytest.mark.topology(LAN)

V4, V6 = socket.AF_INET, socket.AF_INET6
BITS = {V4: 32, V6: 128}
FAMILIES = {"IPv4": V4, "IPv6": V6}
NETLINK_XFRM, SPI = 6, 0x1000
# In struct xfrm_selector, with which both structures begin: the family, and the prefix length of each end.
FAMILY_AT, LENGTH_AT = 40, {"destination": 42, "source": 43}
LENGTHS = (0, 1, 8, 31, 32, 33, 64, 127, 128, 129, 255)


def expected(kind, family, stated, length):
    if kind == "policy" and not stated:
        return Measured("only of an SA is there a family that the selector may leave out")
    return "accepted" if length <= BITS[family] else "EINVAL"


TABLE = Table("xfrm.prefixes", "selector of", "prefix length", "RFC 4632, 3.1; RFC 4291, 2.3: no prefix is longer than an address", {
    f"{kind}, {name}{'' if stated else ', without a family'}": {
        f"{end} {length}": expected(kind, family, stated, length) for end in LENGTH_AT for length in LENGTHS}
    for kind in ("SA", "policy") for name, family in FAMILIES.items() for stated in (True, False)})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_prefix_of_a_selector_is_no_longer_than_an_address(net, row, table):
    """The longer one would fit no packet."""
    server = net["server"]
    kind, name, *rest = row.split(", ")
    family = FAMILIES[name]
    here, there = server.address(family), net["client"].address(family)
    # Without ESP in the kernel all would be refused for another reason.
    xfrm.add(server, SA(here, there, SPI))
    for number, column in enumerate(table, 1):
        end, length = column.split()
        selector = Selector(here, there, socket.IPPROTO_UDP, dport=4000 + number)
        body = bytearray(wire.sa(SA(here, there, SPI + number, selector=selector)) if kind == "SA"
                         else wire.policy_with_template(Policy(selector, Template(here, there))))
        body[LENGTH_AT[end]] = int(length)
        if rest:
            body[FAMILY_AT:FAMILY_AT + 2] = bytes(2)
        request = message(wire.NEWSA if kind == "SA" else wire.NEWPOLICY, NLM_F_REQUEST | NLM_F_ACK, bytes(body))
        answer = errno_of(rtnl.exchange, server.namespace, NETLINK_XFRM, [request], [column])
        table.saw(answer if isinstance(answer, str) else "accepted")
