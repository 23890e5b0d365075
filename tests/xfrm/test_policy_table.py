"""Policies: the host and the direction that has one x what it says: which datagram of client to server passes."""

import dataclasses
import socket

import pytest

from fixtures.table import Measured, Must, Table
from fixtures.topologies import ROUTED
from fixtures.xfrm_fate import Traffic
from netns.netlink import xfrm
from netns.netlink.xfrm import Policy, Selector, Template

pytestmark = pytest.mark.topology(ROUTED)

SPORT, FIRST_PORT = 5000, 4000
V4 = socket.AF_INET
# Of the client, and of nobody; prefixes with the client in them, and one beside it.
NOBODY = {V4: "198.51.100.77", socket.AF_INET6: "2001:db8:2::77"}
ANY = {V4: "0.0.0.0/0", socket.AF_INET6: "::/0"}
WITHIN = {V4: "192.0.2.0/24", socket.AF_INET6: "2001:db8:1::/64"}
WIDER = {V4: "192.0.0.0/9", socket.AF_INET6: "2001:c00::/23"}
BESIDE = {V4: "192.0.2.128/25", socket.AF_INET6: "2001:db8:1:0:8000::/65"}
SOURCE = "RFC 4301, 4.4.1, 5.1 and 5.2; Documentation/networking/xfrm_proc.rst"

# Where a datagram from the client to the server meets a policy, and where it does not.
PLACES = {"client out": True, "client in": False, "router in": False, "router fwd": True, "router out": True, "server in": True,
          "server fwd": False, "server out": False}


class PolicyCase:
    """The policies that one column adds to the place, made from that which matches its datagrams alone."""

    def __init__(self, family, direction, selector):
        self.family, self.selector = family, selector
        self.all = Policy(selector, direction=direction)
        self.block = dataclasses.replace(self.all, action="block")

    def select(self, policy, **fields):
        return dataclasses.replace(policy, selector=dataclasses.replace(self.selector, **fields))

    def esp(self, **fields):
        return dataclasses.replace(self.all, template=Template(self.selector.source, self.selector.destination, **fields))


# Column: what to add, what the place then does with the datagram.
COLUMNS = {
    "no policy": (lambda case: [], "pass"),
    "allow": (lambda case: [case.all], "pass"),
    "block": (lambda case: [case.block], "block"),
    "block, with ICMP errors": (lambda case: [dataclasses.replace(case.block, icmp=True)], "block"),
    "block another protocol": (lambda case: [case.select(case.block, protocol=socket.IPPROTO_TCP)], "pass"),
    "block any source port": (lambda case: [case.select(case.block, sport=0)], "block"),
    "block another source port": (lambda case: [case.select(case.block, sport=SPORT + 1)], "pass"),
    "block another destination port": (lambda case: [case.select(case.block, dport=case.selector.dport + 1000)], "pass"),
    "block another source": (lambda case: [case.select(case.block, source=NOBODY[case.family])], "pass"),
    "block another destination": (lambda case: [case.select(case.block, destination=NOBODY[case.family])], "pass"),
    "block any address": (lambda case: [case.select(case.block, source=ANY[case.family], destination=ANY[case.family])], "block"),
    "block any source": (lambda case: [case.select(case.block, source=ANY[case.family])], "block"),
    "block any destination": (lambda case: [case.select(case.block, destination=ANY[case.family])], "block"),
    "block the prefix of the source": (lambda case: [case.select(case.block, source=WITHIN[case.family])], "block"),
    "block a wider prefix": (lambda case: [case.select(case.block, source=WIDER[case.family])], "block"),
    "block a prefix beside the source": (lambda case: [case.select(case.block, source=BESIDE[case.family])], "pass"),
    "allow before block": (lambda case: [dataclasses.replace(case.block, priority=2),
                                         dataclasses.replace(case.select(case.all, sport=0), priority=1)], "pass"),
    "block before allow": (lambda case: [dataclasses.replace(case.all, priority=2),
                                         dataclasses.replace(case.select(case.block, sport=0), priority=1)], "block"),
    "allow a prefix before block of the address": (
        lambda case: [dataclasses.replace(case.block, priority=2),
                      dataclasses.replace(case.select(case.all, source=WITHIN[case.family]), priority=1)], "pass"),
    "block a prefix before allow of the address": (
        lambda case: [dataclasses.replace(case.all, priority=2),
                      dataclasses.replace(case.select(case.block, source=WITHIN[case.family]), priority=1)], "block"),
    "allow and block of one priority": (lambda case: [case.all, case.select(case.block, sport=0)], "measured"),
    "block marked packets": (lambda case: [dataclasses.replace(case.block, mark=(1, 0xFF))], "pass"),
    "block unmarked packets": (lambda case: [dataclasses.replace(case.block, mark=(0, 0xFF))], "block"),
    "block marked packets, with bits beyond the mask": (lambda case: [dataclasses.replace(case.block, mark=(0xF01, 0xFF))], "pass"),
    "block unmarked packets, with bits beyond the mask": (lambda case: [dataclasses.replace(case.block, mark=(0xF00, 0xFF))], "block"),
    "block packets of an xfrm interface": (lambda case: [dataclasses.replace(case.block, interface=7)], "pass"),
    "ESP required": (lambda case: [case.esp()], "ESP"),
    "ESP in tunnel mode required": (lambda case: [case.esp(mode="tunnel")], "ESP"),
    "ESP optional": (lambda case: [case.esp(optional=True)], "pass"),
}
# Column: as above, then what to do with it before the datagram comes.
LATER = {
    "allow, updated to block": ("allow", xfrm.update, lambda case: case.block, "block"),
    "block, updated to allow": ("block", xfrm.update, lambda case: case.all, "pass"),
    "block, deleted": ("block", xfrm.delete, lambda case: case.block, "pass"),
    "ESP required, updated to allow": ("ESP required", xfrm.update, lambda case: case.all, "pass"),
    "ESP required, deleted": ("ESP required", xfrm.delete, lambda case: case.all, "pass"),
    "allow, updated to ESP required": ("allow", xfrm.update, lambda case: case.esp(), "ESP"),
}


def expected(place, says):
    host, direction = place.split()
    if says == "measured":
        return Measured("no document says which of two policies of one priority is first")
    if says == "pass" or not PLACES[place]:
        return "delivered"
    if direction == "out":
        counter = "XfrmOutPolBlock" if says == "block" else "XfrmOutNoStates"
        refused = "EPERM" if says == "block" and host == "client" else "dropped"
        return Must(f"{refused}, {counter} +1 on {host}", "RFC 4301, 5.1; xfrm_proc.rst; xfrm_sysctl.rst, xfrm_larval_drop")
    return f"dropped, {'XfrmInPolBlock' if says == 'block' else 'XfrmInTmplMismatch'} +1 on {host}"


TABLE = Table("xfrm.policy", "policy of", "policy", SOURCE, {
    place: {**{column: expected(place, says) for column, (_add, says) in COLUMNS.items()},
            **{column: expected(place, says) for column, (*_steps, says) in LATER.items()}} for place in PLACES})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_policy_decides_about_the_datagrams_that_it_matches(net, family, row, table):
    """Where they meet it: in the direction and on the host that has it; the counter says why one was dropped."""
    host, direction = row.split()
    traffic = Traffic(*net.nodes("client", "server"), family, net["router"])
    net[host].pin({"net.core.xfrm_larval_drop": 1})
    sender = traffic.sender(SPORT)
    for number, column in enumerate(table):
        port = FIRST_PORT + number
        case = PolicyCase(family, direction, Selector(traffic.here, traffic.there, socket.IPPROTO_UDP, SPORT, port))
        first, change, second, _says = LATER.get(column, (column, None, None, None))
        if policies := COLUMNS[first][0](case):
            xfrm.add(net[host], *policies)
        with traffic.receiver(port) as receiver:
            if change:
                traffic.fate(sender, receiver)
                change(net[host], second(case))
            table.saw(traffic.fate(sender, receiver))
