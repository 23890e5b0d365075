"""Who is told what: each event of an SA or a policy x each group of NETLINK_XFRM, and another namespace."""

import dataclasses
import select
import socket
import struct

import pytest
from pyroute2.netlink import NLM_F_ACK, NLM_F_REPLACE, NLM_F_REQUEST

from fixtures.table import Measured, Must, Table
from fixtures.topologies import LAN
from fixtures.xfrm_fate import Traffic
from netns import eventually
from netns.attempt import errno_of
from netns.netlink import rtnl, xfrm, xfrm_wire as wire
from netns.netlink.message import HEADER, attribute, message
from netns.netlink.xfrm import SA, Policy, Selector, Template

pytestmark = pytest.mark.topology(LAN)

NETLINK_XFRM, PORT, SPI, REQID = 6, 4000, 0x1000, 7
# enum xfrm_nlgroups and the messages of include/uapi/linux/xfrm.h.
GROUPS = ("ACQUIRE", "EXPIRE", "SA", "POLICY", "AEVENTS", "REPORT", "MIGRATE", "MAPPING")
ELSEWHERE = "another namespace"
MESSAGES = dict(enumerate((
    "NEWSA", "DELSA", "GETSA", "NEWPOLICY", "DELPOLICY", "GETPOLICY", "ALLOCSPI", "ACQUIRE", "EXPIRE", "UPDPOLICY", "UPDSA", "POLEXPIRE",
    "FLUSHSA", "FLUSHPOLICY", "NEWAE", "GETAE", "REPORT", "MIGRATE", "NEWSADINFO", "GETSADINFO", "NEWSPDINFO", "GETSPDINFO", "MAPPING",
    "SETDEFAULT", "GETDEFAULT"), 0x10))
FLUSHSA, FLUSHPOLICY, ALLOCSPI, MIGRATE = 0x1C, 0x1D, 0x16, 0x21
REPLAY_VALUE, REPLAY_THRESHOLD, MIGRATE_ATTRIBUTE = 10, 11, 17
# struct xfrm_user_expire and xfrm_user_polexpire end in "hard", after the SA or the policy.
HARD_AT = {"EXPIRE": wire.SA_SIZE, "POLEXPIRE": wire.POLICY_SIZE}
# What is in each message about the SA and the policy of the test.
ABOUT = {**dict.fromkeys(("NEWSA", "UPDSA", "DELSA", "EXPIRE", "NEWAE"), SPI.to_bytes(4, "big")),
         **dict.fromkeys(("NEWPOLICY", "UPDPOLICY", "DELPOLICY", "POLEXPIRE", "ACQUIRE", "MIGRATE"), PORT.to_bytes(2, "big"))}
# No NEWAE by itself: xfrm_sync.rst.
PINNED = {"net.core.xfrm_larval_drop": 1, "net.core.xfrm_aevent_etime": 0, "net.core.xfrm_aevent_rseqth": 0}
SOURCE = "include/uapi/linux/xfrm.h, enum xfrm_nlgroups; ip-xfrm(8), ip xfrm monitor; Documentation/networking/xfrm_sync.rst"


class Event:
    """The client's policy and SA, and its listeners. Each method is an event; `state()` is what it needs."""

    def __init__(self, traffic):
        self.traffic, self.client = traffic, traffic.client
        here, there = traffic.here, traffic.there
        selector = Selector(here, there, socket.IPPROTO_UDP, dport=PORT)
        self.policy = Policy(selector, Template(here, there, REQID))
        self.tunnel = Policy(selector, Template(here, there, REQID, mode="tunnel"))
        self.sa = SA(here, there, SPI, REQID)

    def request(self, kind, body=b"", flags=0):
        rtnl.exchange(self.client.namespace, NETLINK_XFRM, [message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body)], [MESSAGES[kind]])

    def send(self, count=1):
        with self.traffic.sender() as sender, self.traffic.receiver(PORT) as receiver:
            for _ in range(count):
                self.traffic.fate(sender, receiver)

    def add(self, **fields):
        xfrm.add(self.client, self.policy, dataclasses.replace(self.sa, **fields))

    def aevent(self, attributes, flags):
        """XFRM_MSG_NEWAE: struct xfrm_aevent_id."""
        here = socket.inet_pton(self.traffic.family, self.traffic.here).ljust(16, b"\0")
        self.request(wire.NEWAE, wire.sa_id(self.sa) + here + struct.pack("=II", flags, REQID) + attributes, NLM_F_REPLACE)

    def migrate(self):
        """XFRM_MSG_MIGRATE: the tunnel's source becomes another address; struct xfrm_user_migrate."""
        family, pack = self.traffic.family, socket.inet_pton
        old = [pack(family, address).ljust(16, b"\0") for address in (self.traffic.there, self.traffic.here)]
        new = [old[0], pack(family, "192.0.2.77" if family == socket.AF_INET else "2001:db8:1::77").ljust(16, b"\0")]
        body = b"".join(old + new) + struct.pack("=BBHIHH", socket.IPPROTO_ESP, 1, 0, REQID, family, family)
        self.request(MIGRATE, wire.policy_id(self.tunnel) + attribute(MIGRATE_ATTRIBUTE, body))

    def larval(self):
        """XFRM_MSG_ALLOCSPI, which is answered with the SA: struct xfrm_userspi_info."""
        body = wire.sa(dataclasses.replace(self.sa, spi=0))[:wire.SA_SIZE] + struct.pack("=II", SPI, SPI)
        with self.client.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as netlink:
            netlink.settimeout(10)
            netlink.send(message(ALLOCSPI, NLM_F_REQUEST, body))
            assert MESSAGES[HEADER.unpack_from(netlink.recv(1 << 16))[1]] == "NEWSA"


def duplicate(event):
    for item in (event.sa, event.policy):
        assert errno_of(xfrm.add, event.client, item) == "EEXIST"


def unknown(event):
    assert errno_of(xfrm.delete, event.client, event.sa) == "ESRCH"
    assert errno_of(xfrm.delete, event.client, event.policy) == "ENOENT"


def nothing(_event):
    """Neither an SA nor a policy."""


def changed(item, **fields):
    """An event: this policy or SA of the test is updated."""
    return lambda event: xfrm.update(event.client, dataclasses.replace(getattr(event, item), **fields))


def limited(**limits):
    """The policy, and an SA with these limits."""
    return lambda event: event.add(**limits)


def flushed(kind, body=b""):
    return lambda event: event.request(kind, body)


def threshold(event):
    """The policy, and an SA that tells of every second packet: XFRMA_REPLAY_THRESH."""
    event.add()
    event.aevent(attribute(REPLAY_THRESHOLD, struct.pack("=I", 2)), 1)


def sent(count):
    return lambda event: event.send(count)


BOTH = Event.add
EXPIRED = {"EXPIRE": "EXPIRE hard", "SA": None, "ACQUIRE": None}
# Event: what it needs, what happens, by group what is told; the others hear nothing.
EVENTS = {
    "SA added": (nothing, lambda event: xfrm.add(event.client, event.sa), {"SA": "NEWSA"}),
    "SA updated": (BOTH, changed("sa", seconds=(1000, 2000)), {"SA": "UPDSA"}),
    "SA deleted": (BOTH, lambda event: xfrm.delete(event.client, event.sa), {"SA": "DELSA"}),
    "SAs flushed": (BOTH, flushed(FLUSHSA, bytes(4)), {"SA": "FLUSHSA"}),
    "no SAs flushed": (nothing, flushed(FLUSHSA, bytes(4)), {"SA": None}),
    "policy added": (nothing, lambda event: xfrm.add(event.client, event.policy), {"POLICY": "NEWPOLICY"}),
    "policy updated": (BOTH, changed("policy", template=None), {"POLICY": "UPDPOLICY"}),
    "policy added by an update": (nothing, changed("policy"), {"POLICY": "UPDPOLICY"}),
    "policy deleted": (BOTH, lambda event: xfrm.delete(event.client, event.policy), {"POLICY": "DELPOLICY"}),
    "policies flushed": (BOTH, flushed(FLUSHPOLICY), {"POLICY": "FLUSHPOLICY"}),
    "no policies flushed": (nothing, flushed(FLUSHPOLICY), {"POLICY": None}),
    "duplicates refused": (BOTH, duplicate, {}),
    "unknown ones not deleted": (nothing, unknown, {}),
    "SPI allocated": (nothing, Event.larval, {"SA": None}),
    "SA used": (BOTH, Event.send, {}),
    "no SA for a packet": (lambda event: xfrm.add(event.client, event.policy), Event.send, {"ACQUIRE": "ACQUIRE"}),
    "soft packet limit": (limited(packets=(1, 0)), sent(2), {"EXPIRE": "EXPIRE soft"}),
    "hard packet limit": (limited(packets=(0, 1)), sent(2), EXPIRED),
    "soft byte limit": (limited(size=(1, 0)), sent(2), {"EXPIRE": "EXPIRE soft"}),
    "hard byte limit": (limited(size=(0, 1)), sent(2), EXPIRED),
    "soft time limit": (nothing, limited(seconds=(1, 0)), {"EXPIRE": "EXPIRE soft", "SA": "NEWSA", "POLICY": "NEWPOLICY"}),
    "hard time limit": (nothing, limited(seconds=(0, 1)), {"EXPIRE": "EXPIRE hard", "SA": None, "POLICY": "NEWPOLICY"}),
    "time limit of a policy": (nothing, lambda event: xfrm.add(event.client, dataclasses.replace(event.policy, seconds=1)),
                               {"EXPIRE": "POLEXPIRE hard", "POLICY": None}),
    "sequence number set": (BOTH, lambda event: event.aevent(attribute(REPLAY_VALUE, struct.pack("=III", 9, 0, 0)), 2),
                            {"AEVENTS": "NEWAE"}),
    "sequence number past its threshold": (threshold, sent(3), {"AEVENTS": "NEWAE"}),
    "policy and SA migrated": (lambda event: xfrm.add(event.client, event.tunnel, dataclasses.replace(event.sa, mode="tunnel")),
                               Event.migrate, {"MIGRATE": "MIGRATE"}),
}
# These take time: a timer, or a tasklet.
LATE = {event for event in EVENTS if "limit" in event}


def expected(event, group):
    if group == ELSEWHERE:
        return Must("nothing", "network_namespaces(7): each has its own policies and SAs")
    told = EVENTS[event][2]
    if event == "policy and SA migrated" and group == "SA":
        return Measured("no document says whether SAs that are replaced are told of")
    if group not in told:
        return "nothing"
    return told[group] or Measured("no document says whether this group is told of it")


TABLE = Table("xfrm.event", "event", "group that listens", SOURCE, {
    event: {group: expected(event, group) for group in (*GROUPS, ELSEWHERE)} for event in EVENTS})


def listener(host, *groups):
    """A socket that listens to these groups alone."""
    found = host.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM)
    found.bind((0, sum(1 << GROUPS.index(group) for group in groups)))
    found.setblocking(False)
    return found


def heard(netlink):
    """The messages that wait, by name; an expiry with its kind, and whether it is about what this test made."""
    found = []
    while isinstance(datagram := errno_of(netlink.recv, 1 << 16), bytes):
        length, kind, *_rest = HEADER.unpack_from(datagram)
        name, body = MESSAGES.get(kind, hex(kind)), datagram[HEADER.size:length]
        text = f"{name} {'hard' if body[HARD_AT[name]] else 'soft'}" if name in HARD_AT else name
        found.append(text if ABOUT.get(name, b"") in body else f"{text} of another")
    return ", ".join(found) or "nothing"


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_event_is_told_to_its_group_alone(net, family, row, table):
    """Once, and by name; the other groups and the other namespaces hear nothing of it."""
    client, server = net.nodes("client", "server")
    client.pin(PINNED)
    event = Event(Traffic(client, server, family))
    prepare, happen, _told = EVENTS[row]
    prepare(event)
    listeners = {group: listener(client, group) for group in GROUPS}
    listeners[ELSEWHERE] = listener(server, *GROUPS)
    happen(event)
    if row in LATE:
        eventually("message of the group EXPIRE", lambda: select.select([listeners["EXPIRE"]], [], [], 0)[0], True, within=5)
    for group in table:
        table.saw(heard(listeners[group]))
