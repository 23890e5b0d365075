"""TCP_USER_TIMEOUT that is set when the peer has not answered for some time: its value x what comes from the peer afterwards. Source:
tcp(7), TCP_USER_TIMEOUT; RFC 5482; RFC 9293, 3.9.1.1."""

import select
import socket
import time

import pytest

from fixtures.table import Measured, Must, Table
from fixtures.topologies import LAN
from netns import approx_timer, listen
from netns.attempt import so_error
from netns.traffic import states
from netns.traffic.scripted import Peer
from netns.traffic.states import PINNED

pytestmark = [pytest.mark.topology(LAN), pytest.mark.virtual_clock("lets minutes pass, a cell after the other")]

# Seconds. After EARLIER the timer of retransmissions or probes has backed off: the next one comes at NEXT.
EARLIER, NEXT = 4.0, 6.2
LEAST = 0.2                                 # the shortest timer, TCP_RTO_MIN (include/net/tcp.h)
SOON, LATE = 0.5, 60
# When the timeout is set, in seconds from the beginning of silence, and its value.
VALUES = {"expired": (EARLIER, SOON), "from the beginning, expired": (0, EARLIER - 1), "not expired": (EARLIER, LATE)}
FOLLOWS = ("nothing", "an ACK of what is acknowledged, window as before", "an old ACK", "urgent data")
WINDOWS = {"data in flight": 60000, "zero window, unsent data": 0, "shrunk window, data in flight": 0}


def expected(state, value, follows):
    if value == "not expired":
        return "goes on"
    if value.startswith("from the beginning"):
        return Must("ETIMEDOUT before", "tcp(7): the maximum time that data may remain unacknowledged, or unsent for a zero window")
    if follows in ("nothing", "an old ACK") or state != "zero window, unsent data":
        return Measured("tcp(7) does not say when a timeout that has expired when it is set is noticed")
    return Must("ETIMEDOUT at once", "tcp(7): a timer that is armed after the maximum is over has the shortest time, TCP_RTO_MIN")


TABLE = Table("tcp.user_timeout", "state", "TCP_USER_TIMEOUT, and what comes then", "tcp(7), TCP_USER_TIMEOUT", {
    state: {f"{value}, {follows}": expected(state, value, follows) for value in VALUES for follows in FOLLOWS} for state in WINDOWS})


def silent(peer, listener, state):
    """A connection that waits for the peer."""
    case = states.established(peer, listener)
    line = case.line
    if state.startswith("zero"):
        announce(case, 0)
    with peer.hearing(line):
        case.conn.send(bytes(100))
    if state.startswith("shrunk"):
        case.outstanding = 100
        announce(case, 0)
    case.outstanding = 0 if state.startswith("zero") else 100
    return case


def announce(case, window):
    with case.line.peer.hearing(case.line):
        case.line.write("A", case.line.snd, case.line.rcv - case.outstanding, window=window)


def follow(case, what, window):
    """Of the peer, whose window is as before."""
    line = case.line
    if what == "nothing":
        return
    ack = line.rcv - case.outstanding - (50 if "old" in what else 0)
    line.write("PA" + "U" * ("urgent" in what), line.snd, ack, b"x" if "urgent" in what else b"", window=window)


def outcome(case, since, deadline):
    """When the socket has an error."""
    with select.epoll() as poll:
        poll.register(case.conn, select.EPOLLERR)
        poll.poll(max(0, deadline - time.time()))
    if error := so_error(case.conn):
        took = time.time() - since
        return f"{error} {'at once' if took <= approx_timer(LEAST).most + 0.05 else 'at the next timer'}"
    return "goes on"


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_user_timeout_ends_what_has_waited_longer(net, family, row, table, clock):
    """Also one that is set when it is already over."""
    client, server = net.nodes("client", "server")
    server.pin({**PINNED, "net.ipv4.tcp_retries2": 15})
    peer, listener = Peer(client, server, family, metrics=("quickack", "1")), listen(server, family, 4096)
    for column in table:
        value, follows = column.rsplit(", ", 1) if ", window" not in column else (column.partition(", an ACK")[0], FOLLOWS[1])
        at, seconds = VALUES[value]
        case = silent(peer, listener, row)
        if at == 0:
            case.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))
        clock.sleep(EARLIER)
        if error := so_error(case.conn):
            table.saw(f"{error} before")
            continue
        if at:
            case.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))
        since = time.time()
        follow(case, follows, WINDOWS[row])
        table.saw(outcome(case, since, since + NEXT - EARLIER + 4))
        case.conn.close()
