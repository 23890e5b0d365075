"""Sequence numbers of ESP: the kind and the size of the replay window x the number that arrives, and the numbers that a sender uses."""

import socket

import pytest

from fixtures.table import LeftOut, Measured, Must, Table
from fixtures.topologies import LAN
from fixtures.xfrm_fate import Traffic
from netns.netlink import xfrm
from netns.netlink.xfrm import SA, Policy, Replay, Selector, Template

pytestmark = pytest.mark.topology(LAN)

FIRST_PORT, FIRST_SPI = 4000, 0x1000
BIG, END = 2**31, 2**32
SOURCE = "RFC 4303, 3.4.3 and appendix A; Documentation/networking/xfrm_proc.rst"
# Kind and size in packets of the receiver's window.
WINDOWS = {"none": ("legacy", 0), "legacy 1": ("legacy", 1), "legacy 31": ("legacy", 31), "legacy 32": ("legacy", 32),
           "bitmap 32": ("bitmap", 32), "bitmap 64": ("bitmap", 64), "bitmap 4096": ("bitmap", 4096), "ESN 32": ("ESN", 32),
           "ESN 64": ("ESN", 64), "ESN 4096": ("ESN", 4096)}
# Column: the highest number received, the one that arrives, whether it is one that has not been received yet. "edge" is the window's size.
ARRIVALS = {
    "first of all": (0, 1, True), "5th is first": (0, 5, True), "next": (10000, 10001, True), "one is skipped": (10000, 10002, True),
    "a window is skipped": (10000, "+edge", True), "more than a window is skipped": (10000, "+edge+1", True),
    "a million is skipped": (10000, 1010000, True), "half of all are skipped": (10000, 10000 + BIG - 1, True),
    "the last again": (10000, 10000, False),
    "the last but one, missing": (10000, 9999, True), "the last but one, again": (10000, 9999, False),
    "the oldest within, missing": (10000, "-edge+1", True), "the oldest within, again": (10000, "-edge+1", False),
    "the first beyond, missing": (10000, "-edge", True), "1 of 10000": (10000, 1, True),
    "the last of 32 bits": (END - 2, END - 1, True), "the last of 32 bits, missing": (END - 1, END - 2, True),
    "over 32 bits": (END - 1, END, True), "the second over 32 bits": (END - 1, END + 1, True), "beyond 32 bits": (END + 4, END + 5, True),
    "from before 32 bits, missing": (END + 4, END - 3, True), "from before 32 bits, again": (END + 4, END - 3, False),
}


def numbers(window, column):
    """The highest number received, and the one that arrives."""
    received, arrives, _missing = ARRIVALS[column]
    if isinstance(arrives, int):
        return received, arrives
    offset = arrives.replace("edge", str(max(1, WINDOWS[window][1])))
    return received, received + sum(map(int, offset.replace("+", " +").replace("-", " -").split()))


def expected(window, column):
    kind, size = WINDOWS[window]
    received, arrives = numbers(window, column)
    missing = ARRIVALS[column][2]
    if kind != "ESN" and max(received, arrives) >= END:
        return LeftOut("the number has 32 bits")
    if arrives == received and missing:
        return LeftOut("the window has no such number")
    below = received - arrives
    if size == 0 or below < 0 or below < size and missing:
        return "delivered"
    if kind == "ESN" and below >= size:
        # The receiver takes it for one of the next 2^32, so that the ICV does not fit.
        return Must("dropped, XfrmInStateProtoError +1 on server", "RFC 4303, A2.1; xfrm_proc.rst")
    return "dropped, XfrmInStateSeqError +1 on server"


ARRIVING = Table("xfrm.replay", "replay window", "number that arrives", SOURCE, {
    window: {column: expected(window, column) for column in ARRIVALS} for window in WINDOWS})

# The number last sent, and that of the datagram which follows.
SENT = {"0": 0, "1": 1, "2^31 - 1": BIG - 1, "2^31": BIG, "2^32 - 3": END - 3, "2^32 - 2": END - 2, "2^32 - 1": END - 1, "2^32": END,
        "2^33 - 1": 2 * END - 1, "2^63": 2**63, "2^64 - 2": 2**64 - 2, "2^64 - 1": 2**64 - 1}
SENDERS = {"legacy": Replay(), "legacy, may wrap": Replay(wraps=True), "bitmap": Replay("bitmap", 64),
           "bitmap, may wrap": Replay("bitmap", 64, wraps=True), "ESN": Replay("ESN", 64)}


def sends(row, column):
    kind, last = SENDERS[row], SENT[column]
    bits = 2**64 if kind.kind == "ESN" else END
    if last >= bits:
        return LeftOut("the number has 32 bits")
    if last + 1 < bits:
        return f"sends {last + 1 & 0xFFFFFFFF}"
    if kind.wraps:
        return Measured("XFRM_SA_XFLAG_OSEQ_MAY_WRAP lets it begin anew; no document says whether with 0")
    return Must("refused, XfrmOutStateSeqError +1 on client", "RFC 4303, 3.3.3: the number must not cycle; xfrm_proc.rst")


SENDING = Table("xfrm.sequence", "sender's sequence numbers", "last one sent", SOURCE, {
    row: {column: sends(row, column) for column in SENT} for row in SENDERS})


class Pairs:
    """SAs from the client to the server, each for the datagrams to a port of its own."""

    def __init__(self, traffic):
        self.traffic, self.mine, self.theirs = traffic, [], []

    def add(self, number, sent, received):
        """Pair `number`, whose ends have this state of Replay."""
        here, there, port = self.traffic.here, self.traffic.there, FIRST_PORT + number
        selector = Selector(here, there, socket.IPPROTO_UDP, dport=port)
        self.mine += [Policy(selector, Template(here, there, reqid=port)), SA(here, there, FIRST_SPI + number, reqid=port, replay=sent)]
        self.theirs.append(SA(here, there, FIRST_SPI + number, reqid=port, replay=received))

    def install(self):
        xfrm.add(self.traffic.client, *self.mine)
        xfrm.add(self.traffic.server, *self.theirs)


@pytest.mark.table(ARRIVING)
@pytest.mark.parametrize("row", ARRIVING.rows)
def test_each_sequence_number_within_the_window_is_accepted_once(net, family, row, table):
    """Numbers above are accepted and move the window; those below it are not."""
    kind, size = WINDOWS[row]
    traffic = Traffic(*net.nodes("client", "server"), family)
    pairs = Pairs(traffic)
    for index, column in enumerate(ARRIVALS):
        received, arrives = numbers(row, column)
        if kind == "ESN" or max(received, arrives) < END:
            missing = frozenset({arrives} if ARRIVALS[column][2] else ())
            sent = Replay(kind, max(size, 1), sent=arrives - 1)
            pairs.add(index, sent, Replay(kind, size, received=received, missing=missing))
    pairs.install()
    sender = traffic.sender()
    for column in table:
        with traffic.receiver(FIRST_PORT + list(ARRIVALS).index(column)) as receiver:
            table.saw(traffic.fate(sender, receiver))


@pytest.mark.table(SENDING)
@pytest.mark.parametrize("row", SENDING.rows)
def test_sequence_number_does_not_cycle(net, family, row, table):
    """Each datagram has the next number, the lower 32 bits of it; after the last one the sender refuses to send."""
    traffic = Traffic(*net.nodes("client", "server"), family)
    pairs = Pairs(traffic)
    state = SENDERS[row]
    for index, column in enumerate(SENT):
        last = SENT[column] if state.kind == "ESN" else SENT[column] % END
        pairs.add(index, Replay(state.kind, state.window, sent=last, wraps=state.wraps), Replay(window=0))
    pairs.install()
    sender = traffic.sender()
    for column in table:
        with traffic.receiver(FIRST_PORT + list(SENT).index(column)) as receiver, traffic.client.capture("esp") as packets:
            fate = traffic.fate(sender, receiver)
            sent = packets.sent()
        table.saw(f"sends {sent.only().esp_sequence}" if sent else f"refused, {fate.partition(', ')[2]}")
