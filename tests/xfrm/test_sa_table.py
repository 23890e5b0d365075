"""SAs: the attributes of the receiver's, of the sender's and of the policies x the mode: which ESP packets pass, and why not."""

import dataclasses
import socket

import pytest

from fixtures.table import Measured, Must, OneOf, Table
from fixtures.topologies import LAN
from fixtures.xfrm_fate import Traffic
from netns.netlink import xfrm
from netns.netlink.xfrm import SA, Policy, Selector, Template

pytestmark = pytest.mark.topology(LAN)

FIRST_PORT, SPI = 4000, 0x1000
V4 = socket.AF_INET
NOBODY = {V4: "192.0.2.77", socket.AF_INET6: "2001:db8:1::77"}
OTHER_KEY = bytes(range(1, 21))
SOURCE = "RFC 4301, 5.1 and 5.2; RFC 4303, 3.4; Documentation/networking/xfrm_proc.rst"
# The server has a policy for what comes in, or none: RFC 4301, 5.2, step 4.
WAYS = {"transport": ("transport", True), "transport, no policy for input": ("transport", False), "tunnel": ("tunnel", True),
        "tunnel, no policy for input": ("tunnel", False)}


class Pair:
    """An SA from the client to the server for the datagrams to one port; each column changes one part of it."""

    def __init__(self, traffic, port, mode, guarded):
        here, there = traffic.here, traffic.there
        self.family, self.mode = traffic.family, mode
        self.selector = Selector(here, there, socket.IPPROTO_UDP, dport=port)
        self.out = Policy(self.selector, Template(here, there, port, mode))
        self.inward = dataclasses.replace(self.out, direction="in") if guarded else None
        self.sent = self.got = SA(here, there, SPI + port, port, mode)

    def receiver(self, **fields):
        self.got = dataclasses.replace(self.got, **fields)

    def sender(self, **fields):
        self.sent = dataclasses.replace(self.sent, **fields)

    def both(self, **fields):
        self.receiver(**fields)
        self.sender(**fields)

    def policy(self, **fields):
        """Of the server's input."""
        if self.inward:
            self.inward = dataclasses.replace(self.inward, **fields)

    def template(self, **fields):
        self.policy(template=dataclasses.replace(self.out.template, **fields))

    @property
    def other_mode(self):
        return "tunnel" if self.mode == "transport" else "transport"

    def select(self, **fields):
        return dataclasses.replace(self.selector, **fields)

    def items(self):
        return [self.out, *([self.sent] if self.sent else [])], [item for item in (self.inward, self.got) if item]


def remove(pair, *names):
    for name in names:
        setattr(pair, name, None)


PASS, NO_STATE, BAD, MISMATCH = "delivered", "dropped, XfrmInNoStates +1 on server", "dropped, XfrmInStateProtoError +1 on server", \
    "dropped, XfrmInTmplMismatch +1 on server"
OTHER_STATE = "dropped, XfrmInStateMismatch +1 on server"
NO_POLICY = "dropped, XfrmInNoPols +1 on server"
OUT_NONE = "dropped, XfrmOutNoStates +1 on client"
# Column: the change, and the fate where the server has a policy for input.
COLUMNS = {
    "nothing": (lambda pair: None, PASS),
    "receiver has no SA": (lambda pair: remove(pair, "got"), NO_STATE),
    "sender has no SA": (lambda pair: remove(pair, "sent"), OUT_NONE),
    "receiver has another SPI": (lambda pair: pair.receiver(spi=pair.got.spi + 0x10000), NO_STATE),
    "receiver has another key": (lambda pair: pair.receiver(key=OTHER_KEY), BAD),
    "receiver has another destination": (lambda pair: pair.receiver(destination=NOBODY[pair.family]), NO_STATE),
    "receiver's mark matches": (lambda pair: pair.receiver(mark=(0, 0xFF)), PASS),
    "receiver's mark does not match": (lambda pair: pair.receiver(mark=(1, 0xFF)), NO_STATE),
    # ip-xfrm(8), MARK: a value and a mask; what is outside of the mask is no part of either.
    "receiver's mark matches, and has bits beyond its mask": (lambda pair: pair.receiver(mark=(0xF00, 0xFF)), PASS),
    "receiver's mark does not match, and has bits beyond its mask": (lambda pair: pair.receiver(mark=(0xF01, 0xFF)), NO_STATE),
    "receiver's mark has an empty mask": (lambda pair: pair.receiver(mark=(0xF01, 0)), PASS),
    "sender's mark matches": (lambda pair: pair.sender(mark=(0, 0xFF)), PASS),
    "sender's mark matches, and has bits beyond its mask": (lambda pair: pair.sender(mark=(0xF00, 0xFF)), PASS),
    "sender's mark does not match, and has bits beyond its mask": (lambda pair: pair.sender(mark=(0xF01, 0xFF)), OUT_NONE),
    "sender's mark has an empty mask": (lambda pair: pair.sender(mark=(0xF01, 0)), PASS),
    "sender's mark does not match": (lambda pair: pair.sender(mark=(1, 0xFF)), OUT_NONE),
    "receiver has an if_id": (lambda pair: pair.receiver(interface=7), "measured"),
    "sender has an if_id": (lambda pair: pair.sender(interface=7), OUT_NONE),
    "sender has another reqid": (lambda pair: pair.sender(reqid=99), OUT_NONE),
    "receiver has another reqid": (lambda pair: pair.receiver(reqid=99), MISMATCH),
    "receiver has the other mode": (lambda pair: pair.receiver(mode=pair.other_mode), "measured"),
    "receiver has ESN": (lambda pair: pair.receiver(window=1), BAD),
    "sender has ESN": (lambda pair: pair.sender(window=1), BAD),
    "both have ESN": (lambda pair: pair.both(window=1), PASS),
    "receiver's selector matches": (lambda pair: pair.receiver(selector=pair.selector), PASS),
    "receiver's selector has another port": (lambda pair: pair.receiver(selector=pair.select(dport=9)), OTHER_STATE),
    "receiver's selector has another protocol": (lambda pair: pair.receiver(selector=pair.select(protocol=socket.IPPROTO_TCP)),
                                                 OTHER_STATE),
    "receiver's selector has another source": (lambda pair: pair.receiver(selector=pair.select(source=NOBODY[pair.family])), OTHER_STATE),
    "sender's selector matches": (lambda pair: pair.sender(selector=pair.selector), PASS),
    "sender's selector has another port": (lambda pair: pair.sender(selector=pair.select(dport=9)), OUT_NONE),
    "sender's selector has another source": (lambda pair: pair.sender(selector=pair.select(source=NOBODY[pair.family])), OUT_NONE),
    "receiver's policy has another reqid": (lambda pair: pair.template(reqid=99), MISMATCH),
    "receiver's policy has the other mode": (lambda pair: pair.template(mode=pair.other_mode), MISMATCH),
    "receiver's policy has another source": (lambda pair: pair.template(source=NOBODY[pair.family]), "source"),
    "receiver's policy is optional": (lambda pair: pair.template(optional=True), PASS),
    "receiver's policy asks for nothing": (lambda pair: pair.policy(template=None), "plain"),
    "receiver's policy blocks": (lambda pair: pair.policy(action="block"), "dropped, XfrmInPolBlock +1 on server"),
}


def expected(way, column):
    mode, guarded = WAYS[way]
    fate = COLUMNS[column][1]
    if "policy" in column and not guarded:
        fate = PASS
    if fate == "measured":
        return Measured("no document says what becomes of it")
    if fate == "source":
        return MISMATCH if mode == "tunnel" else Must(PASS, "RFC 4301, 4.4.1.2: the addresses of a template are those of the tunnel's ends")
    if fate == "plain":
        return PASS if mode == "transport" else Measured("no document says whether what left a tunnel may meet a policy without one")
    if guarded or fate in (NO_STATE, BAD, OUT_NONE):
        return fate
    if mode == "tunnel":
        return OneOf((NO_POLICY, OTHER_STATE), "xfrm_proc.rst has a counter for each reason") if fate == OTHER_STATE else NO_POLICY
    return fate if fate == OTHER_STATE else Must(PASS, "RFC 4301, 5.2: no policy, no check of the SA that it came by")


TABLE = Table("xfrm.sa", "mode and policies", "what is different", SOURCE, {
    way: {column: expected(way, column) for column in COLUMNS} for way in WAYS})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_esp_passes_if_the_sas_and_the_policies_of_both_ends_fit(net, family, row, table):
    """The counter says which of them does not."""
    traffic = Traffic(*net.nodes("client", "server"), family)
    traffic.client.pin({"net.core.xfrm_larval_drop": 1})
    mode, guarded = WAYS[row]
    sender = traffic.sender()
    for number, column in enumerate(table):
        pair = Pair(traffic, FIRST_PORT + number, mode, guarded)
        COLUMNS[column][0](pair)
        for host, items in zip((traffic.client, traffic.server), pair.items()):
            if items:
                xfrm.add(host, *items)
        with traffic.receiver(FIRST_PORT + number) as receiver:
            table.saw(traffic.fate(sender, receiver))
