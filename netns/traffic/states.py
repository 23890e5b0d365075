"""Connections in each state of RFC 9293, 3.3.2, and what a segment does to them. The other end is a scripted peer."""

import errno
import fcntl
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from netns.attempt import errno_name, so_error
from netns.hosts.host import Host
from netns.netlink import diag
from netns.observe.counters import Counters
from netns.packets.packet import Packet
from netns.traffic.scripted import WINDOW, Line, Peer
from netns.traffic.tcp import STATES

# Bytes that the peer has sent in a synchronized state, all read, and that the host has sent, all acknowledged.
RECEIVED, SENT = 20, 100
# Bytes that the host has in flight in the state "ESTABLISHED, data in flight".
IN_FLIGHT = 100
_SIOCOUTQ = 0x5411
RFC_NAMES = {
    "CLOSE": "CLOSED", "NEW_SYN_RECV": "SYN-RECEIVED", "SYN_RECV": "SYN-RECEIVED", "FIN_WAIT1": "FIN-WAIT-1", "FIN_WAIT2": "FIN-WAIT-2",
    **{name: name.replace("_", "-") for name in STATES if name not in ("CLOSE", "NEW_SYN_RECV", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2")},
}
# What a segment makes the host count (RFC 4022; Documentation/networking/snmp_counter.rst).
_COUNTED = ("Tcp.EstabResets", "Tcp.AttemptFails", "Tcp.OutRsts", "TcpExt.TCPChallengeACK", "TcpExt.TCPSYNChallenge", "TcpExt.PAWSEstab",
            "TcpExt.TCPMD5NotFound", "TcpExt.TCPMD5Unexpected", "TcpExt.TCPMD5Failure")


class Arrival(NamedTuple):
    """A segment of the peer, by its place in the connection: `seq` counts from RCV.NXT, with `edge` from the end of the receive
    window; `ack` from SND.NXT, with `una` from SND.UNA; `length` is bytes of data. `tsval` counts from the peer's last TSval and
    `tsecr` from the host's, None is no timestamps option."""

    flags: str
    seq: int = 0
    ack: int = 0
    length: int = 0
    edge: bool = False
    una: bool = False
    tsval: int | None = 0
    tsecr: int = 0


# What the answers depend on, of the host under test.
PINNED = {
    "net.ipv4.tcp_timestamps": 0, "net.ipv4.tcp_sack": 0, "net.ipv4.tcp_no_metrics_save": 1, "net.ipv4.tcp_rfc1337": 0,
    "net.ipv4.tcp_challenge_ack_limit": 1000000, "net.ipv4.tcp_syncookies": 0, "net.core.somaxconn": 4096,
    "net.ipv4.tcp_max_syn_backlog": 4096, "net.ipv4.tcp_ecn": 0,
}
# Where a segment begins, from RCV.NXT or from the end of the window on.
PLACES = {
    "": {}, " in the window": {"seq": 10}, " at the last octet": {"seq": -1, "edge": True}, " at the right edge": {"edge": True},
    " beyond the window": {"seq": 1, "edge": True}, " of old sequence": {"seq": -1}, " far below": {"seq": -100000},
}
SEGMENTS = {
    **{f"{name}{place}": Arrival(flags, **at) for name, flags in (("RST", "R"), ("RST-ACK", "RA"), ("SYN", "S"), ("SYN-ACK", "SA"),
                                                                  ("ACK", "A"), ("FIN", "FA")) for place, at in PLACES.items()},
    "data": Arrival("PA", length=10), "data in the window": Arrival("PA", 10, length=10), "old data": Arrival("PA", -10, length=10),
    "data that overlaps RCV.NXT": Arrival("PA", -5, length=10),
    "data across the right edge": Arrival("PA", -5, length=10, edge=True),
    "data at the right edge": Arrival("PA", length=10, edge=True), "data beyond the window": Arrival("PA", 1, length=10, edge=True),
    "FIN with data": Arrival("FPA", length=10), "FIN with old data": Arrival("FPA", -11, length=10),
    "ACK of SND.UNA": Arrival("A", una=True), "ACK of old data": Arrival("A", ack=-50, una=True),
    "ACK of what was never sent": Arrival("A", ack=-SENT - 100, una=True),
    "ACK that is too old": Arrival("A", ack=-WINDOW - 1, una=True), "ACK of unsent data": Arrival("A", ack=1),
    "ACK of much unsent data": Arrival("A", ack=100000),
    "data with ACK of SND.UNA": Arrival("PA", ack=0, una=True, length=10),
    "data with ACK of old data": Arrival("PA", ack=-50, una=True, length=10),
    "data with ACK that is too old": Arrival("PA", ack=-WINDOW - 1, una=True, length=10),
    "data with ACK of unsent data": Arrival("PA", ack=1, length=10),
    "FIN with ACK of SND.UNA": Arrival("FA", una=True), "FIN with ACK of unsent data": Arrival("FA", ack=1),
    "RST-ACK of unsent data": Arrival("RA", ack=1), "SYN with data": Arrival("S", length=10),
    "no flags": Arrival(""), "data without ACK": Arrival("P", length=10), "FIN without ACK": Arrival("F"),
    "SYN with RST": Arrival("SR"), "SYN with FIN": Arrival("SF"), "all flags": Arrival("FSRPAUEC"),
}
# The receive window in tables of expectations: larger than any place, smaller than "far below".
RCV_WND = 50000


@dataclass
class Case:
    """A connection in some state: the host's socket, if it has one, and the number of sequence numbers that are not acknowledged.
    `origin` is where it comes from and may return to: "LISTEN" if it has a `listener`, nonblocking, that is not part of the case else.
    The answers must be `signed` if the connection has an MD5 key."""

    line: Line
    conn: socket.socket | None = None
    outstanding: int = 0
    origin: str = "CLOSED"
    listener: socket.socket | None = None
    signed: bool = False

    @property
    def host(self) -> Host:
        return self.line.peer.host

    def state(self) -> str:
        """The connection's state by its name in RFC 9293, `origin` if there is only a listener, "CLOSED" if there is nothing."""
        peer, line = self.line.peer, self.line
        local, remote = (self.host.address(peer.family), line.port), (peer.address, line.peer_port)
        name = diag.state(self.host, peer.family, local, remote)
        return self.origin if name == "LISTEN" else RFC_NAMES[name]

    def arrives(self, segment: Arrival) -> str:
        """Let the segment arrive, and say what it does: the answer, the state afterwards, what the socket then gives, and the
        counters that moved."""
        line = self.line
        seq = (line.edge if segment.edge else line.snd) + segment.seq
        ack = line.rcv - (self.outstanding if segment.una else 0) + segment.ack
        rcv, snd, before = line.rcv, line.snd, self.host.counters()
        with line.peer.hearing(line) as heard:
            timestamps = None
            if line.tsval is not None and segment.tsval is not None:
                timestamps = line.tsval + segment.tsval, line.tsecr + segment.tsecr
            line.write(segment.flags, seq, ack if "A" in segment.flags else 0, bytes(segment.length), timestamps)
        counted = {name: value - before[name] for name, value in self._counters() if value != before[name]}
        answers = [_answer(packet, segment, seq, ack, snd, rcv) + self._echo(packet, segment)
                   for packet in heard if packet.flags != "S"]
        resets = sum("R" in packet.flags for packet in heard)
        if counted.pop("Tcp.OutRsts", 0) != resets:
            answers.append("counted otherwise in OutRsts")
        challenges = counted.pop("TcpExt.TCPChallengeACK", 0)
        if challenges and len(answers) == 1 and answers[0].split(" with")[0] == "ACK":
            answers = [f"challenge {answers[0]}"]
            challenges -= 1
        if challenges:
            counted["TcpExt.TCPChallengeACK"] = challenges
        state = self.state()
        words = [" and ".join(answers) or "nothing", state, *self._given(state)]
        return ", ".join([*words, *(f"{name.partition('.')[2]} {change:+}" for name, change in counted.items())])

    def _counters(self) -> list[tuple[str, int]]:
        after: Counters = self.host.counters()
        return [(name, after[name]) for name in _COUNTED]

    def _echo(self, packet: Packet, segment: Arrival) -> str:
        """What is not as before in the answer's options: its signature; TSecr, the peer's TSval that the host took last (RFC 7323, 4.3)."""
        if self.signed and not packet.signed:
            return " unsigned"
        if self.line.tsval is None or "R" in packet.flags or "S" in packet.flags and segment.tsval is None:
            return ""
        if packet.timestamps is None:
            return " without timestamps"
        newer = _off(packet.timestamps[1], self.line.tsval)
        return f" with TSecr {newer:+}" if newer else ""

    def accept(self) -> bool:
        """Take the connection from its listener, if it is there, and all others."""
        with suppress(BlockingIOError):
            while True:
                conn, (_address, port, *_) = self.listener.accept()
                self.host.adopt(conn).setblocking(False)
                if port == self.line.peer_port:
                    self.conn = conn
        return self.conn is not None

    def _given(self, state: str) -> list[str]:
        """What the socket in this state gives: bytes in flight, an errno, data, the end."""
        accepted = ["accepted"] if self.conn is None and self.listener is not None and self.accept() else []
        if self.conn is None or self.conn.fileno() < 0:
            return []
        (unacknowledged,) = struct.unpack("=i", fcntl.ioctl(self.conn, _SIOCOUTQ, bytes(4)))
        # A FIN is told by the state.
        words = [*accepted, *([f"{unacknowledged} unacknowledged"] if unacknowledged > 1 and state != "CLOSED" else [])]
        if failure := so_error(self.conn):
            return [*words, failure]
        try:
            data = self.conn.recv(1 << 16)
            if data:
                words.append(f"{len(data)} bytes")
                data = self.conn.recv(1 << 16)
            words.append(f"then {len(data)} bytes" if data else "EOF")
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOTCONN):
                words.append(errno_name(error.errno))
        return words


def _answer(packet: Packet, segment: Arrival, seq: int, ack: int, snd: int, rcv: int) -> str:
    """An answer in the RFC's terms. An RST has the numbers of RFC 9293, 3.5.2, or says which; an ACK has SND.NXT, and says what it
    acknowledges beyond the former RCV.NXT."""
    if "R" in packet.flags:
        end = seq + segment.length + ("S" in segment.flags) + ("F" in segment.flags)
        right = (0, end % 2**32, "RA") if "A" not in segment.flags else (ack % 2**32, 0, "R")
        wrong = "" if (packet.seq, packet.ack, packet.flags) == right else f" of {_off(packet.seq, ack)}, {_off(packet.ack, end)}"
        return {"R": "RST", "RA": "RST-ACK"}.get(packet.flags, packet.flags) + wrong
    name = {"A": "ACK", "SA": "SYN-ACK", "FA": "FIN", "PA": "data"}.get(packet.flags, packet.flags)
    if name == "SYN-ACK":
        return name if packet.ack == (seq + 1) % 2**32 else f"SYN-ACK of {_off(packet.ack, snd)}"
    beyond = _off(packet.ack, snd)
    return name + (f" {beyond:+}" if beyond else "") + ("" if packet.seq == rcv else f" from {_off(packet.seq, rcv)}")


def _off(number: int, base: int) -> int:
    return (number - base + 2**31) % 2**32 - 2**31


def established(peer: Peer, listener: socket.socket, timestamps: bool = False) -> Case:
    """A connection that carried data in both directions."""
    line = peer.line(listener.getsockname()[1], timestamps)
    conn = line.establish(listener)
    line.say("PA", bytes(RECEIVED))
    conn.recv(RECEIVED)
    with peer.hearing(line):
        conn.send(bytes(SENT))
    line.say("A")
    return Case(line, conn)


def _send_fin(case: Case, orphan: bool = False) -> Case:
    with case.line.peer.hearing(case.line):
        case.conn.close() if orphan else case.conn.shutdown(socket.SHUT_WR)
    case.outstanding = 1
    return case


def in_flight(peer: Peer, listener: socket.socket, timestamps: bool = False) -> Case:
    case = established(peer, listener, timestamps)
    with peer.hearing(case.line):
        case.conn.send(bytes(IN_FLIGHT))
    case.outstanding = IN_FLIGHT
    return case


def fin_wait_1(peer: Peer, listener: socket.socket, timestamps: bool = False, orphan: bool = False) -> Case:
    return _send_fin(established(peer, listener, timestamps), orphan)


def fin_wait_2(peer: Peer, listener: socket.socket, timestamps: bool = False, orphan: bool = False) -> Case:
    case = fin_wait_1(peer, listener, timestamps, orphan)
    case.line.say("A")
    case.outstanding = 0
    return case


def close_wait(peer: Peer, listener: socket.socket, timestamps: bool = False) -> Case:
    case = established(peer, listener, timestamps)
    case.line.say("FA")
    case.conn.recv(1)
    return case


def closing(peer: Peer, listener: socket.socket, timestamps: bool = False, orphan: bool = False) -> Case:
    """The peer's FIN, which does not acknowledge the host's."""
    case = fin_wait_1(peer, listener, timestamps, orphan)
    line = case.line
    with peer.hearing(line):
        line.write("FA", line.snd, line.rcv - 1, timestamps=line.timestamps)
    line.snd = (line.snd + 1) % 2**32
    if not orphan:
        case.conn.recv(1)
    return case


def last_ack(peer: Peer, listener: socket.socket, timestamps: bool = False, orphan: bool = False) -> Case:
    return _send_fin(close_wait(peer, listener, timestamps), orphan)


def time_wait(peer: Peer, listener: socket.socket, timestamps: bool = False) -> Case:
    case = fin_wait_2(peer, listener, timestamps)
    case.line.say("FA")
    case.conn.close()
    return case


SYNCHRONIZED: dict[str, Callable[..., Case]] = {
    "ESTABLISHED": established, "ESTABLISHED, data in flight": in_flight, "FIN-WAIT-1": fin_wait_1, "FIN-WAIT-2": fin_wait_2,
    "CLOSE-WAIT": close_wait, "CLOSING": closing, "LAST-ACK": last_ack, "TIME-WAIT": time_wait,
}
# The socket is closed.
CLOSED: dict[str, Callable[..., Case]] = {
    "FIN-WAIT-1, closed": partial(fin_wait_1, orphan=True), "FIN-WAIT-2, closed": partial(fin_wait_2, orphan=True),
    "CLOSING, closed": partial(closing, orphan=True), "LAST-ACK, closed": partial(last_ack, orphan=True),
}
