"""SAs and policies that change under traffic: what happens to them x the socket and the mode: how the next datagram goes."""

import dataclasses
import socket

import pytest
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST

from fixtures.table import Measured, OneOf, Table
from fixtures.topologies import LAN
from fixtures.xfrm_fate import Traffic
from netns.netlink import rtnl, xfrm
from netns.netlink.message import message
from netns.netlink.xfrm import SA, Policy, Selector, Template

pytestmark = pytest.mark.topology(LAN)

FIRST_PORT, OLD, NEW, OTHER_REQID = 4000, 0x1000, 0x20000, 30000
NETLINK_XFRM, FLUSHSA, FLUSHPOLICY = 6, 0x1C, 0x1D
# The networks of the client, of IPv6 and of IPv4.
WITHIN = ("2001:db8:1::/64", "192.0.2.0/24")
SOURCE = "RFC 4301, 4.4.1, 4.4.2 and 5.1; Documentation/networking/xfrm_proc.rst"
# A connected socket keeps its route and the SAs that go with it.
WAYS = {f"{kind}, {mode}": (kind, mode) for kind in ("connected", "unconnected", "new") for mode in ("transport", "tunnel")}


class UpdatedFlow:
    """The datagrams of one cell, and what protects them."""

    def __init__(self, traffic, port, mode):
        here, there = traffic.here, traffic.there
        self.client, self.server = traffic.client, traffic.server
        self.selector = Selector(here, there, socket.IPPROTO_UDP, dport=port)
        self.policy = Policy(self.selector, Template(here, there, port, mode), priority=10)
        self.old = SA(here, there, OLD + port, port, mode)
        self.new = dataclasses.replace(self.old, spi=NEW + port)
        self.other = dataclasses.replace(self.new, reqid=OTHER_REQID + port)
        xfrm.add(self.client, self.policy, self.old)
        # It accepts whatever comes: in the clear, or by one of the two SAs.
        accept = dataclasses.replace(self.policy, direction="in", template=dataclasses.replace(self.policy.template, optional=True))
        xfrm.add(self.server, accept, self.old, self.new)

    def template(self, **fields):
        return dataclasses.replace(self.policy, template=dataclasses.replace(self.policy.template, **fields))

    def flush(self, kind, body=b""):
        rtnl.exchange(self.client.namespace, NETLINK_XFRM, [message(kind, NLM_F_REQUEST | NLM_F_ACK, body)], ["flush"])

    def add(self, *items):
        xfrm.add(self.client, *items)

    def update(self, item):
        xfrm.update(self.client, item)

    def delete(self, *items):
        xfrm.delete(self.client, *items)

    def ahead(self, **fields):
        """A policy of a higher priority for the same datagrams."""
        selector = dataclasses.replace(self.selector, source=WITHIN["." in self.selector.source])
        return dataclasses.replace(self.policy, selector=selector, priority=1, **fields)


LOST = "dropped, XfrmOutNoStates +1 on client"
CLEAR, BY_OLD, BY_NEW = "delivered in the clear", "delivered by the old SA", "delivered by the new SA"
BLOCKED = "EPERM, XfrmOutPolBlock +1 on client"
EVENTS = {
    "nothing": (lambda flow: None, BY_OLD),
    "SA deleted": (lambda flow: flow.delete(flow.old), LOST),
    "SAs flushed": (lambda flow: flow.flush(FLUSHSA, bytes(4)), LOST),
    "SA deleted and added again": (lambda flow: (xfrm.delete(flow.server, flow.old), xfrm.add(flow.server, flow.old), flow.delete(flow.old),
                                                    flow.add(flow.old)), BY_OLD),
    "SA updated with lifetimes": (lambda flow: flow.update(dataclasses.replace(flow.old, seconds=(1000, 2000))), BY_OLD),
    "newer SA added": (lambda flow: flow.add(flow.new), OneOf((BY_OLD, BY_NEW), "RFC 4301, 4.1: parallel SAs may both be used")),
    "newer SA added, older deleted": (lambda flow: (flow.add(flow.new), flow.delete(flow.old)), BY_NEW),
    "SA deleted, newer added": (lambda flow: (flow.delete(flow.old), flow.add(flow.new)), BY_NEW),
    "SA of another reqid added": (lambda flow: flow.add(flow.other), BY_OLD),
    "policy deleted": (lambda flow: flow.delete(flow.policy), CLEAR),
    "policies flushed": (lambda flow: flow.flush(FLUSHPOLICY), CLEAR),
    "policy deleted and added again": (lambda flow: (flow.delete(flow.policy), flow.add(flow.policy)), BY_OLD),
    "policy updated as it was": (lambda flow: flow.update(flow.policy), BY_OLD),
    "policy updated to allow": (lambda flow: flow.update(dataclasses.replace(flow.policy, template=None)), CLEAR),
    "policy updated to block": (lambda flow: flow.update(dataclasses.replace(flow.policy, action="block")), BLOCKED),
    "policy updated to a reqid without SA": (lambda flow: flow.update(flow.template(reqid=9)), LOST),
    "policy updated to the reqid of another SA": (
        lambda flow: (flow.add(flow.other), flow.update(flow.template(reqid=flow.other.reqid))), BY_NEW),
    "policy without ESP added before it": (lambda flow: flow.add(flow.ahead(template=None)), CLEAR),
    "policy that blocks added before it": (lambda flow: flow.add(flow.ahead(action="block")), BLOCKED),
    "policy added before it and deleted": (lambda flow: (flow.add(flow.ahead(action="block")), flow.delete(flow.ahead(action="block"))),
                                           BY_OLD),
    "receiver's SA deleted": (lambda flow: xfrm.delete(flow.server, flow.old), "dropped, XfrmInNoStates +1 on server"),
    "receiver's SA deleted and added again": (lambda flow: (xfrm.delete(flow.server, flow.old), xfrm.add(flow.server, flow.old)), BY_OLD),
    "hard packet limit reached": (lambda flow: flow.update(dataclasses.replace(flow.old, packets=(0, 1))),
                                  Measured("no document says whether limits of an update count what was sent before")),
}
TABLE = Table("xfrm.update", "what happens", "socket and mode", SOURCE, {
    event: {way: fate for way in WAYS} for event, (_change, fate) in EVENTS.items()})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_next_datagram_goes_by_what_holds_now(net, family, row, table):
    """Not by what held for the one before: a route and SAs that were kept from then are not used any more."""
    traffic = Traffic(*net.nodes("client", "server"), family)
    traffic.client.pin({"net.core.xfrm_larval_drop": 1})
    for number, column in enumerate(table):
        kind, mode = WAYS[column]
        connected = kind == "connected"
        port = FIRST_PORT + number
        flow = UpdatedFlow(traffic, port, mode)
        with traffic.receiver(port) as receiver, traffic.sender() as sender, traffic.sender() as another:
            if connected:
                sender.connect((traffic.there, port))
            assert traffic.fate(sender, receiver, connected=connected) == "delivered"
            EVENTS[row][0](flow)
            with traffic.client.capture() as packets:
                fate = traffic.fate(another if kind == "new" else sender, receiver, connected=connected)
                table.saw(fate + way_out(packets.sent(), flow) if fate.startswith("delivered") else fate)


def way_out(packets, flow):
    """How the datagram left, in words."""
    spis = [packet.spi for packet in packets if packet.protocol == "esp"]
    names = {flow.old.spi: " by the old SA", flow.new.spi: " by the new SA"}
    return "".join(names.get(spi, f" by SPI {spi}") for spi in spis) or " in the clear"
