"""Lifetimes of SAs: which limit, of the sender's SA or the receiver's x the datagram: which pass, and what key managers are told."""

import socket

import pytest

from fixtures.table import Must, Table
from fixtures.topologies import LAN
from fixtures.xfrm_fate import Traffic
from netns import eventually
from netns.netlink import xfrm
from netns.netlink.xfrm import SA, Policy, Selector, Template

pytestmark = pytest.mark.topology(LAN)

FIRST_PORT, SPI = 4000, 0x1000
SOURCE = "RFC 4301, 4.4.2.1: at the soft limit a warning, at the hard limit the SA ends; Documentation/networking/xfrm_proc.rst"
# The limits of the SA, soft and hard, and how many datagrams pass before each takes effect: 0 is never. One datagram has more than 1
# byte, and none has 2000.
LIMITS = {
    "no limit": ({}, 0, 0), "soft packets": ({"packets": (2, 0)}, 2, 0), "hard packets": ({"packets": (0, 2)}, 0, 2),
    "one packet": ({"packets": (0, 1)}, 0, 1), "soft and hard packets": ({"packets": (1, 3)}, 1, 3), "soft bytes": ({"size": (1, 0)}, 1, 0),
    "hard bytes": ({"size": (0, 1)}, 0, 1), "bytes that are not reached": ({"size": (2000, 2000)}, 0, 0),
    "soft packets and hard bytes": ({"packets": (1, 0), "size": (0, 1)}, 1, 1),
    "soft bytes and hard packets": ({"size": (1, 0), "packets": (0, 2)}, 1, 2),
}
DATAGRAMS = 5
ENDS = {"sender's SA": ("XfrmOutStateExpired +1 on client", "XfrmOutNoStates +1 on client"),
        "receiver's SA": ("XfrmInStateExpired +1 on server", "XfrmInNoStates +1 on server")}


def fate(end, limit, number):
    """The datagram after the last one ends the SA and is dropped; then there is none."""
    hard = LIMITS[limit][2]
    if not hard or number <= hard:
        return "delivered"
    return f"not delivered, {ENDS[end][number > hard + 1]}"


def told(limit):
    """By key managers' sockets, once 5 datagrams have been sent."""
    _limits, soft, hard = LIMITS[limit]
    # Where both are reached at once the SA has ended.
    return " and ".join((["soft"] if soft and soft != hard else []) + (["hard"] if hard else [])) or "nothing"


COUNTED = Table("xfrm.lifetime", "limit", "datagram", SOURCE, {
    f"{end}, {limit}": {**{f"{number} of {DATAGRAMS}": fate(end, limit, number) for number in range(1, DATAGRAMS + 1)},
                        "what is told": Must(told(limit), "RFC 4301, 4.4.2.1; ip-xfrm(8), ip xfrm monitor")}
    for end in ENDS for limit in LIMITS})

# Seconds of the soft and the hard limit; when the datagram is sent.
TIMES = {"no time limit": (0, 0), "soft": (2, 0), "hard": (0, 5), "soft and hard": (2, 5)}
MOMENTS = {"at once": 0, "after 3.5 s": 3.5, "after 7 s": 7}


def timely(end, limit, moment):
    hard = TIMES[limit][1]
    return f"not delivered, {ENDS[end][1]}" if hard and MOMENTS[moment] > hard else "delivered"


def told_by(limit, moment):
    return " and ".join(word for word, seconds in zip(("soft", "hard"), TIMES[limit]) if seconds and seconds < MOMENTS[moment]) or "nothing"


TIMED = Table("xfrm.time", "SA", "limit, and the moment of the datagram", SOURCE, {
    end: {**{f"{limit}, {moment}": timely(end, limit, moment) for moment in MOMENTS for limit in TIMES},
          **{f"{limit}, told {moment}": told_by(limit, moment) for moment in MOMENTS for limit in TIMES}}
    for end in ENDS})


class Lifetimes:
    """SAs for the datagrams to one port each, and what the key managers of both hosts hear of them."""

    def __init__(self, traffic, end):
        self.traffic, self.end = traffic, end
        traffic.client.pin({"net.core.xfrm_larval_drop": 1})
        limited = traffic.client if end == "sender's SA" else traffic.server
        self.manager = xfrm.KeyManager(limited)
        self.sender = traffic.sender()

    def add(self, port, **limits):
        here, there = self.traffic.here, self.traffic.there
        selector = Selector(here, there, socket.IPPROTO_UDP, dport=port)
        plain, limited = SA(here, there, SPI + port, port), SA(here, there, SPI + port, port, **limits)
        mine = self.end == "sender's SA"
        xfrm.add(self.traffic.client, Policy(selector, Template(here, there, port)), limited if mine else plain)
        xfrm.add(self.traffic.server, plain if mine else limited)

    def told(self, port):
        return [expiry.hard for expiry in self.manager.expires() if expiry.spi == SPI + port]

    def await_end(self, port):
        eventually("hard EXPIRE of the SA", lambda: True in self.told(port), True, within=5)

    def fate(self, receiver):
        seen = self.traffic.fate(self.sender, receiver)
        return seen if seen == "delivered" else f"not delivered, {seen.partition(', ')[2]}"


def in_words(told):
    return " and ".join("hard" if hard else "soft" for hard in told) or "nothing"


@pytest.mark.table(COUNTED)
@pytest.mark.parametrize("row", COUNTED.rows)
def test_sa_ends_at_its_hard_limit(net, family, row, table):
    """What exceeds the limit is dropped and counted, and the SA is deleted; key managers are told once of each limit."""
    end, limit = row.split(", ")
    limits, _soft, hard = LIMITS[limit]
    lifetimes = Lifetimes(Traffic(*net.nodes("client", "server"), family), end)
    for index, column in enumerate(table):
        port = FIRST_PORT + index
        lifetimes.add(port, **limits)
        count = DATAGRAMS if column == "what is told" else int(column.split()[0])
        with lifetimes.traffic.receiver(port) as receiver:
            for number in range(1, count + 1):
                if hard and number == hard + 2:
                    lifetimes.await_end(port)
                seen = lifetimes.fate(receiver)
        table.saw(in_words(lifetimes.told(port)) if column == "what is told" else seen)


@pytest.mark.virtual_clock("lets seconds pass")
@pytest.mark.table(TIMED)
@pytest.mark.parametrize("row", TIMED.rows)
def test_sa_ends_when_its_time_is_over(net, family, row, table, clock):
    """Used or not. The kernel counts whole seconds, so that a limit may come a second early or late."""
    lifetimes = Lifetimes(Traffic(*net.nodes("client", "server"), family), row)
    ports = {limit: FIRST_PORT + index for index, limit in enumerate(TIMES)}
    for limit, port in ports.items():
        lifetimes.add(port, seconds=TIMES[limit])
    seen, gone = {}, 0
    for moment, seconds in MOMENTS.items():
        clock.sleep(seconds - gone)
        gone = seconds
        for limit, port in ports.items():
            with lifetimes.traffic.receiver(port) as receiver:
                seen[f"{limit}, {moment}"] = lifetimes.fate(receiver)
            seen[f"{limit}, told {moment}"] = in_words(lifetimes.told(port))
    for column in table:
        table.saw(seen[column])
