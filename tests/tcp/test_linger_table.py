"""close(2) in each state and with each SO_LINGER: how long it takes, what is sent, and what is left (RFC 9293, 3.10.4 and 3.10.5;
socket(7); RFC 1122, 4.2.2.13)."""

import socket
import struct
import time

import pytest

from fixtures.table import Must, Table
from fixtures.topologies import LAN
from netns import approx_timer, listen
from netns.traffic import opening, states
from netns.traffic.scripted import Line, Peer
from netns.traffic.states import PINNED, Case

pytestmark = pytest.mark.topology(LAN)

LINGER = 1
NAMES = {"FA": "FIN", "FPA": "FIN", "RA": "RST-ACK", "R": "RST"}
SETTINGS = {"no SO_LINGER": None, "SO_LINGER off, 1 s": (0, LINGER), "SO_LINGER 0 s": (1, 0), "SO_LINGER 1 s": (1, LINGER)}


def unread(peer: Peer, listener: socket.socket) -> Case:
    case = states.established(peer, listener)
    case.line.say("PA", bytes(10))
    return case


def unread_after_fin(peer: Peer, listener: socket.socket) -> Case:
    case = states.established(peer, listener)
    case.line.say("FPA", bytes(10))
    return case


def unsent(peer: Peer, listener: socket.socket) -> Case:
    """The peer has closed its window before the data came."""
    case = states.established(peer, listener)
    with peer.hearing(case.line):
        case.line.write("A", case.line.snd, case.line.rcv, window=0)
    case.conn.send(bytes(10))
    return case


def queued(peer: Peer, _listener: socket.socket) -> Case:
    """A listener with a connection in its accept queue, which is closed."""
    case = opening.syn_received(peer)
    case.line.say("A")
    case.conn, case.listener = case.listener, None
    case.origin = "CLOSED"
    return case


STATES = {
    "SYN-SENT": lambda peer, _listener: opening.syn_sent(peer), "ESTABLISHED": states.established,
    "ESTABLISHED, data in flight": states.in_flight, "ESTABLISHED, unsent data": unsent, "ESTABLISHED, unread data": unread,
    "CLOSE-WAIT": states.close_wait, "CLOSE-WAIT, unread data": unread_after_fin, "FIN-WAIT-1": states.fin_wait_1,
    "FIN-WAIT-2": states.fin_wait_2, "CLOSING": states.closing, "LAST-ACK": states.last_ack, "connection in an accept queue": queued,
}
# CLOSE and ABORT: RFC 9293, 3.10.4 and 3.10.5. What close(2) sends, the state that it leaves, whether it waits, and what ABORT sends.
CLOSES = {
    "SYN-SENT": ("nothing", "CLOSED", False, "nothing"),
    "ESTABLISHED": ("FIN", "FIN-WAIT-1", True, "RST-ACK"),
    "ESTABLISHED, data in flight": ("FIN", "FIN-WAIT-1", True, "RST-ACK"),
    "ESTABLISHED, unsent data": ("nothing", "FIN-WAIT-1", True, "RST-ACK"),
    "CLOSE-WAIT": ("FIN", "LAST-ACK", True, "RST-ACK"),
    "FIN-WAIT-1": ("nothing", "FIN-WAIT-1", True, "RST-ACK"), "FIN-WAIT-2": ("nothing", "FIN-WAIT-2", False, "RST-ACK"),
    "CLOSING": ("nothing", "CLOSING", True, "nothing"), "LAST-ACK": ("nothing", "LAST-ACK", True, "nothing"),
}


def expected(state: str, setting: str) -> str | Must:
    if state.endswith("unread data"):
        return Must("close() at once, RST-ACK, CLOSED", "RFC 1122, 4.2.2.13; RFC 2525, 2.17: data that was not read is lost, and reset")
    if state not in CLOSES:
        return Must("close() at once, RST-ACK, CLOSED", "inet_csk_listen_stop(): nobody can accept it any more")
    sent, left, waits, aborted = CLOSES[state]
    if setting == "SO_LINGER 0 s":
        return f"close() at once, {aborted}, CLOSED"
    when = f"{LINGER} s" if waits and setting == "SO_LINGER 1 s" else "at once"
    return f"close() {when}, {sent}, {left}"


TABLE = Table("tcp.linger", "state", "setting", "RFC 9293, 3.10.4, 3.10.5; socket(7), SO_LINGER", {
    state: {setting: expected(state, setting) for setting in SETTINGS} for state in STATES
})


def closes(case: Case) -> str:
    """What close(2) does."""
    line: Line = case.line
    rcv, began = line.rcv, time.monotonic()
    with line.peer.hearing(line) as heard:
        case.conn.close()
        took = time.monotonic() - began
    when = "at once" if took < 0.1 else f"{LINGER if took == approx_timer(LINGER) else round(took, 2)} s"
    # What was sent before is only retransmitted.
    sent = [NAMES.get(packet.flags, packet.flags) for packet in heard if (packet.seq - rcv) % 2**32 < 2**31]
    return ", ".join([f"close() {when}", " and ".join(dict.fromkeys(sent)) or "nothing", case.state()])


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_close_does_what_its_state_and_so_linger_say(net, family, row, table):
    """CLOSE, or ABORT with SO_LINGER 0; with another one close(2) waits until all is acknowledged, or for so long."""
    client, server = net.nodes("client", "server")
    server.pin(PINNED)
    peer, listener = Peer(client, server, family), listen(server, family, 4096)

    for column in table:
        case = STATES[row](peer, listener)
        if SETTINGS[column]:
            case.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", *SETTINGS[column]))
        table.saw(closes(case))
