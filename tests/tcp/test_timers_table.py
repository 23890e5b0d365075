"""The timers of TCP when the peer is silent: when each state sends again or probes, how often, and when it ends (RFC 9293, 3.8; RFC 6298;
tcp(7); ip-sysctl.rst)."""

import select
import socket
import time
from contextlib import suppress

import pytest

from fixtures.table import Expected, Measured, OneOf, Table
from fixtures.topologies import LAN
from netns import MissingFeature, approx_timer, listen
from netns.attempt import so_error
from netns.traffic import opening, states
from netns.traffic.scripted import Peer
from netns.traffic.states import PINNED, Case

pytestmark = [pytest.mark.topology(LAN), pytest.mark.virtual_clock("lets some minutes pass, a row after the other")]

IDLE, INTERVAL, PROBES, FIN_TIMEOUT, USER_TIMEOUT = 3, 2, 2, 4, 5
RETRIES, SYN_RETRIES, ORPHAN_RETRIES, TIME_WAIT = 4, 2, 2, 60
SYSCTLS = {
    **PINNED, "net.ipv4.tcp_retries2": RETRIES, "net.ipv4.tcp_syn_retries": SYN_RETRIES, "net.ipv4.tcp_synack_retries": SYN_RETRIES,
    "net.ipv4.tcp_orphan_retries": ORPHAN_RETRIES, "net.ipv4.tcp_fin_timeout": FIN_TIMEOUT, "net.ipv4.tcp_keepalive_time": IDLE,
    "net.ipv4.tcp_keepalive_intvl": INTERVAL, "net.ipv4.tcp_keepalive_probes": PROBES,
}
# The retransmission timeout, in seconds: at least TCP_RTO_MIN, and TCP_TIMEOUT_INIT before there is a measurement (RFC 6298, 2.1).
RTO, FIRST_RTO = 0.2, 1
# How late a packet may be beside what the timer wheel says: in seconds, and by the round-trip time that is part of each timeout.
LATE, LONGER = 0.05, 0.03
# The state of a socket that is closed is looked at so often, in seconds.
LOOK = 0.25
Event = tuple[float, str]
Schedule = list[Event]


def backoff(what: str, times: int, rto: float = RTO, begin: float = 0) -> Schedule:
    """Retransmissions after a timeout that doubles (RFC 6298, 5.5)."""
    return [(begin + rto * (2 ** number - 1), what) for number in range(1, times + 1)]


def given_up(what: str, retries: int, end: str, rto: float = RTO, begin: float = 0, at: float = 0) -> Schedule:
    """All retransmissions, and the end when the next is due (ip-sysctl.rst, tcp_retries2), or `at` this time."""
    if at:
        return [*(event for event in backoff(what, 20, rto, begin) if event[0] < at), (at, end)]
    return [*backoff(what, retries, rto, begin), (begin + rto * (2 ** (retries + 1) - 1), end)]


# A cell: what may happen, and the state in the end. The first is what the documents say by the letter.
Cell = list[tuple[Schedule, str]]
KEEPALIVE = [([*((IDLE + number * INTERVAL, "probe") for number in range(PROBES)),
               (IDLE + PROBES * INTERVAL, "RST-ACK"), (IDLE + PROBES * INTERVAL, "ETIMEDOUT")], "CLOSED")]
# tcp(7): with SO_KEEPALIVE, TCP_USER_TIMEOUT determines when the connection ends: at the first probe that is due after it.
BOTH = [([(IDLE, "probe"), (IDLE + INTERVAL, "RST-ACK"), (IDLE + INTERVAL, "ETIMEDOUT")], "CLOSED")]
SETTINGS = ("defaults", "SO_KEEPALIVE", "TCP_USER_TIMEOUT", "SO_KEEPALIVE and TCP_USER_TIMEOUT")
SECONDS, LONG = 15, 70
VARIANTS = ("ip-sysctl.rst, tcp_retries2: a lower bound, the end comes at the first timeout beyond it; "
            "retransmits_timed_out(), tcp_probe_timer(): counted from the first retransmission")


def text(schedule: Schedule, state: str) -> str:
    """ "data at 0.2 0.6, ETIMEDOUT at 1.4, CLOSED"."""
    words: list[str] = []
    last = None
    for at, what in schedule:
        words.append(f" {at:g}" if what == last else f", {what} at {at:g}")
        last = what
    return ("".join(words)[2:] or "nothing") + f", {state}"


def idle(state: str) -> dict[str, Cell]:
    """Without keepalive an idle connection lasts for ever; TCP_USER_TIMEOUT is for data."""
    return {"defaults": [([], state)], "SO_KEEPALIVE": KEEPALIVE, "TCP_USER_TIMEOUT": [([], state)],
            "SO_KEEPALIVE and TCP_USER_TIMEOUT": BOTH}


def sending(what: str, retries: int = RETRIES, end: str = "ETIMEDOUT", rto: float = RTO, begin: float = 0, state: str = "CLOSED",
            for_ever: str = "") -> dict[str, Cell]:
    """Keepalive sends no probe while data is on its way. TCP_USER_TIMEOUT replaces the number of retries (tcp(7))."""
    first = [(begin, what)] if begin else []
    plain = [(first + given_up(what, each, end, rto, begin), state) for each in (retries, retries + 1)]
    if for_ever:
        plain = [([event for event in backoff(what, 20, rto, begin) if event[0] < SECONDS], for_ever)]
    user = [(first + given_up(what, 0, end, rto, begin, at=begin + late + USER_TIMEOUT), state) for late in (rto, 0)]
    return dict(zip(SETTINGS, (plain, plain, user, user)))


def window(case: Case, size: int) -> Case:
    with case.line.peer.hearing(case.line):
        case.line.write("A", case.line.snd, case.line.rcv - case.outstanding, window=size)
    return case


def zero_window(peer: Peer, listener: socket.socket) -> Case:
    return window(states.established(peer, listener), 0)


def write(case: Case) -> Case:
    with case.line.peer.hearing(case.line):
        case.conn.send(bytes(100))
    return case


def corked(peer: Peer, listener: socket.socket) -> Case:
    case = states.established(peer, listener)
    case.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    return write(case)


# In states "..., closed" the socket is closed after its options are set.
STATES = {
    "SYN-SENT": lambda peer, _listener: opening.syn_sent(peer),
    "SYN-RECEIVED": lambda peer, _listener: opening.syn_received(peer),
    "SYN-RECEIVED, simultaneous open": lambda peer, _listener: opening.crossed(peer),
    "ESTABLISHED, idle": states.established, "ESTABLISHED, in flight": states.in_flight, "ESTABLISHED, zero window, idle": zero_window,
    "ESTABLISHED, zero window, unsent data": lambda peer, listener: write(zero_window(peer, listener)),
    "ESTABLISHED, shrunk window, in flight": lambda peer, listener: window(states.in_flight(peer, listener), 0),
    "ESTABLISHED, corked": corked, "CLOSE-WAIT, idle": states.close_wait,
    "CLOSE-WAIT, in flight": lambda peer, listener: write(states.close_wait(peer, listener)),
    "FIN-WAIT-1": states.fin_wait_1, "FIN-WAIT-2": states.fin_wait_2, "CLOSING": states.closing, "LAST-ACK": states.last_ack,
    "FIN-WAIT-1, closed": states.established, "FIN-WAIT-1, in flight, closed": states.in_flight,
    "FIN-WAIT-1, zero window, closed": lambda peer, listener: write(zero_window(peer, listener)),
    "FIN-WAIT-2, closed": states.fin_wait_2, "CLOSING, closed": states.closing, "LAST-ACK, closed": states.close_wait,
    "TIME-WAIT": states.time_wait,
    "ESTABLISHED, idle, route gone": states.established, "ESTABLISHED, in flight, route gone": states.in_flight,
}
ORPHAN = {"retries": ORPHAN_RETRIES, "end": "gone"}
EXPECTED: dict[str, dict[str, Cell]] = {
    "SYN-SENT": sending("SYN", SYN_RETRIES, rto=FIRST_RTO),
    "SYN-RECEIVED": {"defaults": [(given_up("SYN-ACK", SYN_RETRIES, "gone", FIRST_RTO), "LISTEN")]},
    "SYN-RECEIVED, simultaneous open": sending("SYN-ACK", SYN_RETRIES, rto=FIRST_RTO),
    "ESTABLISHED, idle": idle("ESTABLISHED"), "ESTABLISHED, in flight": sending("data"),
    "ESTABLISHED, zero window, idle": idle("ESTABLISHED"), "ESTABLISHED, zero window, unsent data": sending("probe"),
    # RFC 9293, 3.8.6: the window may shrink. The peer has said that it is there, so that the connection lasts.
    "ESTABLISHED, shrunk window, in flight": sending("data", for_ever="ESTABLISHED"),
    # tcp(7), TCP_CORK: 200 ms at most.
    "ESTABLISHED, corked": sending("data", begin=0.2),
    "CLOSE-WAIT, idle": idle("CLOSE-WAIT"), "CLOSE-WAIT, in flight": sending("data"),
    "FIN-WAIT-1": sending("FIN"), "FIN-WAIT-2": idle("FIN-WAIT-2"), "CLOSING": sending("FIN"), "LAST-ACK": sending("FIN"),
    "FIN-WAIT-1, closed": sending("FIN", **ORPHAN), "FIN-WAIT-1, in flight, closed": sending("data", **ORPHAN),
    "FIN-WAIT-1, zero window, closed": sending("probe", **ORPHAN),
    "FIN-WAIT-2, closed": dict.fromkeys(SETTINGS, [([(FIN_TIMEOUT, "gone")], "CLOSED")]),
    "CLOSING, closed": sending("FIN", **ORPHAN), "LAST-ACK, closed": sending("FIN", **ORPHAN),
    "TIME-WAIT": {"defaults": [([(TIME_WAIT, "gone")], "CLOSED")]},
}
# Who has closed does not wait for the user timeout, which is a maximum (tcp(7)), if the probes end before (tcp_orphan_retries).
for _setting in SETTINGS[2:]:
    EXPECTED["FIN-WAIT-1, zero window, closed"][_setting] += EXPECTED["FIN-WAIT-1, zero window, closed"]["defaults"]
EXPECTED["FIN-WAIT-2, closed"]["TCP_LINGER2 of 2 s"] = [([(2, "gone")], "CLOSED")]      # tcp(7)


# Without a route nothing can be sent. No document says when the connection ends, nor with which error; these are the times to be told.
UNROUTED = [([], "ESTABLISHED")]
for _error in ("ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"):
    UNROUTED += [(given_up("", 0, _error, at=at), "CLOSED") for at in (RTO + USER_TIMEOUT, USER_TIMEOUT, IDLE + PROBES * INTERVAL)]
    UNROUTED += [(given_up("", retries, _error), "CLOSED") for retries in (RETRIES, RETRIES + 1)]
for _state in ("idle", "in flight"):
    EXPECTED[f"ESTABLISHED, {_state}, route gone"] = dict.fromkeys(SETTINGS, UNROUTED)


def expectation(state: str, cell: Cell) -> Expected:
    if state.endswith("route gone"):
        return Measured("no document says when a connection without a route ends")
    texts = tuple(text(*each) for each in cell)
    return texts[0] if len(texts) == 1 else OneOf(texts, VARIANTS)


TABLE = Table("tcp.timers", "state of the sender", "setting", "RFC 9293, 3.8; RFC 6298, 5; tcp(7); ip-sysctl.rst", {
    state: {setting: expectation(state, cell) for setting, cell in cells.items()} for state, cells in EXPECTED.items()
})


def set_up(conn: socket.socket, setting: str) -> None:
    if "SO_KEEPALIVE" in setting:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if "TCP_USER_TIMEOUT" in setting:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * USER_TIMEOUT)
    if "TCP_LINGER2" in setting:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 2)


def name(packet) -> str:
    if packet.is_probe:
        return "probe"
    if packet.length:
        return "data"
    return {"S": "SYN", "SA": "SYN-ACK", "FA": "FIN", "A": "ACK", "R": "RST", "RA": "RST-ACK"}.get(packet.flags, packet.flags)


def happened(host, cases: dict[str, Case], begun: dict[str, float], seconds: float) -> dict[str, Schedule]:
    """What the host sends in so many seconds, when a socket fails, and when a connection without a socket is gone."""
    events: dict[str, Schedule] = {column: [] for column in cases}
    held = {case.conn.fileno(): column for column, case in cases.items() if case.conn is not None and case.conn.fileno() >= 0}
    orphans = {column: case for column, case in cases.items() if column not in held.values()}
    end = time.time() + seconds
    with host.capture("tcp") as packets, select.epoll() as poll:
        for number in held:
            poll.register(number, select.EPOLLET)
        while (left := end - time.time()) > 0:
            for number, _what in poll.poll(min(left, LOOK) if orphans else left):
                column = held[number]
                if error := so_error(cases[column].conn):
                    events[column].append((time.time(), error))
            for column, case in list(orphans.items()):
                if case.state() == case.origin:
                    events[column].append((time.time(), "gone"))
                    del orphans[column]
    ports = {case.line.peer_port: column for column, case in cases.items()}
    for packet in packets.sent():
        if packet.dport in ports:
            events[ports[packet.dport]].append((packet.time, name(packet)))
    return {column: sorted((at - begun[column], what) for at, what in found) for column, found in events.items()}


def matches(found: Schedule, expected: Schedule) -> bool:
    """Whether the events are those expected, each as late as the timers that lead to it can be."""
    if [what for _at, what in found] != [what for _at, what in seen(expected)]:
        return False
    times = [0, *(at for at, _what in expected)]
    chain = [later - earlier for earlier, later in zip(times, times[1:])]
    numbers = [number for number, (_at, what) in enumerate(expected, start=1) if what]
    return all(at == approx_timer(*chain[:number], late=LATE + LONGER * at + LOOK * (what == "gone"))
               for number, (at, what) in zip(numbers, found))


def seen(schedule: Schedule) -> Schedule:
    """Without timers that send nothing."""
    return [event for event in schedule if event[1]]


def nominal(found: Schedule, cell: Cell) -> Schedule:
    """The expected events that these are; else the events themselves."""
    for expected, _state in cell:
        if matches(found, expected):
            return seen(expected)
    return [(round(at, 2), what) for at, what in found]


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_silent_peer_is_tried_and_given_up_as_the_timers_say(net, family, row, table, clock):
    """All settings of a state run at the same time."""
    client, server = net.nodes("client", "server")
    server.pin(SYSCTLS)
    with suppress(MissingFeature):
        server.pin({"net.ipv4.tcp_syn_linear_timeouts": 0})
    peer, listener = Peer(client, server, family, metrics=("quickack", "1")), listen(server, family, 4096)
    clock.align(SECONDS)
    cases, begun = {}, {}
    for column in EXPECTED[row]:
        cases[column] = case = STATES[row](peer, listener)
        if case.conn is not None and case.conn.fileno() >= 0:
            set_up(case.conn, column)
        begun[column] = time.time()
        if row.endswith("closed"):
            with peer.hearing(case.line):
                case.conn.close()
    if row.endswith("route gone"):
        server.run(["ip", "-6" if family == socket.AF_INET6 else "-4", "route", "del", peer.address])
    found = happened(server, cases, begun, LONG if row == "TIME-WAIT" else SECONDS)

    for column in table:
        table.saw(text(nominal(found[column], EXPECTED[row][column]), cases[column].state()))
