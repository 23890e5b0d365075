"""When received segments are acknowledged: at once, or with a delay (RFC 9293, 3.8.6.3; RFC 5681, 4.2; tcp(7), TCP_QUICKACK)."""

import socket
import time

import pytest

from fixtures.table import Expected, OneOf, Table
from fixtures.topologies import LAN
from netns import listen
from netns.traffic import states
from netns.traffic.scripted import Peer
from netns.traffic.states import PINNED, Case

pytestmark = pytest.mark.topology(LAN)

# The longest delay that the RFC allows, in seconds, and what is no delay: the timer takes 40 ms at least (TCP_DELACK_MIN).
LONGEST, NONE = 0.5, 0.03
FULL = 1440
# Each segment: its place after RCV.NXT, and its length; "F" is a FIN.
ARRIVALS = {
    "a small segment": [(0, 10)], "two small segments": [(0, 10), (10, 10)], "a full segment": [(0, FULL)],
    "two full segments": [(0, FULL), (FULL, FULL)], "four full segments": [(number * FULL, FULL) for number in range(4)],
    "a segment out of order": [(10, 10)], "a gap and the segment that fills it": [(10, 10), (0, 10)],
    "old data": [(-10, 10)], "a FIN": [(0, "F")], "a keepalive probe": [(-1, 0)], "an ACK": [(0, 0)],
}
MODES = ("by default", "TCP_QUICKACK 1", "TCP_QUICKACK 0", "TCP_QUICKACK 0, interactive")
# What the last ACK acknowledges.
UPTO = {name: max((at + (1 if length == "F" else length) for at, length in segments), default=0) for name, segments in ARRIVALS.items()}
UPTO.update({"a segment out of order": 0, "old data": 0, "a keepalive probe": 0})


def expected(mode: str, arrival: str) -> Expected:
    if arrival == "an ACK":
        return "nothing"
    at_once, delayed = f"{UPTO[arrival]:+} at once", f"{UPTO[arrival]:+} delayed"
    if arrival in ("a segment out of order", "a gap and the segment that fills it", "old data", "a keepalive probe"):
        return at_once                              # RFC 5681, 4.2; RFC 9293, 3.10.7.4, first
    if mode == "TCP_QUICKACK 1" and arrival != "a FIN":
        return at_once                              # tcp(7): it is not permanent; tcp_fin() leaves quickack mode
    if arrival in ("two full segments", "four full segments"):
        return OneOf((at_once, delayed), "RFC 5681, 4.2: SHOULD, for every second one; __tcp_ack_snd_check(): if the window moves on")
    if mode.startswith("TCP_QUICKACK 0") and "small" in arrival:
        return delayed
    return OneOf((at_once, delayed), "RFC 9293, 3.8.6.3: MAY be delayed")


TABLE = Table("tcp.delayed_ack", "mode", "arrival", "RFC 9293, 3.8.6.3; RFC 5681, 4.2; tcp(7), TCP_QUICKACK", {
    mode: {arrival: expected(mode, arrival) for arrival in ARRIVALS} for mode in MODES
})


def receiver(peer: Peer, listener: socket.socket, mode: str) -> Case:
    case = states.established(peer, listener)
    if "interactive" in mode:
        for _question in range(5):
            case.line.say("PA", bytes(20))
            case.conn.recv(20)
            with peer.hearing(case.line):
                case.conn.send(bytes(20))
            case.line.say("A")
    if "QUICKACK" in mode:
        case.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, int("1" in mode))
    return case


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_segments_are_acknowledged_at_once_or_in_half_a_second(net, family, row, table, clock):
    """All arrivals at a mode's receivers come at the same time."""
    client, server = net.nodes("client", "server")
    server.pin(PINNED)
    peer, listener = Peer(client, server, family, metrics=()), listen(server, family, 4096)
    cases, began = {}, {}
    with server.capture("tcp") as packets:
        for column in table.table.columns(row):
            cases[column] = case = receiver(peer, listener, row)
            began[column] = time.time()
            for at, length in ARRIVALS[column]:
                fin = length == "F"
                case.line.write("FA" if fin else "PA" if length else "A", case.line.snd + at, case.line.rcv, bytes(0 if fin else length))
        clock.sleep(LONGEST + 0.1)

    for column in table:
        line = cases[column].line
        answers = [packet for packet in packets.sent() if packet.dport == line.peer_port and packet.time > began[column]]
        if answers:
            last = answers[-1]
            upto, late = (last.ack - line.snd + 2**31) % 2**32 - 2**31, last.time - began[column]
            table.saw(f"{upto:+} {'at once' if late < NONE else 'delayed' if late <= LONGEST else f'after {late:.2f} s'}")
        else:
            table.saw("nothing")
