"""Connection tracking: every legal order of a TCP connection's segments, lost parts, resets, and port reuse in each state.

Source: RFC 9293, 3.10; the words on tcp_conntracks[] in net/netfilter/nf_conntrack_proto_tcp.c; nf_conntrack-sysctl.rst.
"""

import json
import socket

import pytest

from fixtures.table import LeftOut, Must, OneOf, Table
from fixtures.topologies import ROUTED
from netns.netlink import conntrack
from netns.packets import segment

pytestmark = pytest.mark.topology(ROUTED)

# An exchange: who sends (> the client, < the server) which segment, and the state of the entry after it. S, SA, A, F and R are flags, D is
# 10 bytes of data. An x: the segment is lost behind the router. N is the SYN of a new connection from the same port, n that again,
# C the ACK that answers an unexpected SYN (RFC 5961, 4). R+100: a sequence number that is too large by 100; R^-5: an ACK too small by 5.
# States: SS SYN_SENT, S2 SYN_SENT2, SR SYN_RECV, ES ESTABLISHED, FW FIN_WAIT, CW CLOSE_WAIT, LA LAST_ACK, TW TIME_WAIT, CL CLOSE, - none.
# An asterisk: the tracker must call this segment invalid.
NAMES = {"SYN_SENT": "SS", "SYN_SENT2": "S2", "SYN_RECV": "SR", "ESTABLISHED": "ES", "FIN_WAIT": "FW", "CLOSE_WAIT": "CW", "LAST_ACK": "LA",
         "TIME_WAIT": "TW", "CLOSE": "CL"}
OPEN = ">S:SS <SA:SR >A:ES "
REOPEN = " >n:SS <SA:SR >A:ES"
OPENINGS = {
    "opening": OPEN + "<D:ES >A:ES",
    "opening, server speaks last": OPEN + ">D:ES <A:ES",
    "SYN lost": ">Sx:SS >S:SS <SA:SR >A:ES",
    "SYN-ACK lost, SYN again": ">S:SS <SAx:SR >S:SR <SA:SR >A:ES",
    "SYN-ACK lost, SYN-ACK again": ">S:SS <SAx:SR <SA:SR >A:ES",
    "ACK lost": ">S:SS <SA:SR >Ax:ES <SA:ES >A:ES",
    "ACK with data": ">S:SS <SA:SR >D:ES <A:ES",
    "late SYN again": OPEN + ">S:ES <A:ES >D:ES <A:ES",
    "late SYN-ACK again": OPEN + "<SA:ES >A:ES <D:ES >A:ES",
    "simultaneous opening": ">S:SS <S:S2 >SA:SR <SA:SR >A:ES <D:ES >A:ES",
    "simultaneous opening, server speaks": ">S:SS <S:S2 >SA:SR <SA:SR <D:ES >A:ES",
    "simultaneous opening, server's SYN-ACK first": ">S:SS <S:S2 <SA:SR >SA:SR >A:ES <D:ES",
    "simultaneous opening, SYN lost": ">Sx:SS <S:S2 >SA:SR <A:ES >D:ES <A:ES",
    "simultaneous opening, SYNs again": ">Sx:SS <Sx:S2 >S:S2 <S:S2 >SA:SR <SA:SR >A:ES",
}
# With c, who closes first, and o, the other one.
CLOSES = {
    "close": "cF:FW oA:CW oF:LA cA:TW",
    "close, FIN and ACK in one": "cF:FW oF:LA cA:TW",
    "simultaneous close": "cFx:FW oF:LA cA:TW oA:TW",
    "half close": "cF:FW oA:CW oD:CW cA:CW oD:CW cA:CW oF:LA cA:TW",
    "data before and with the close": "cD:ES oA:ES cD:ES cF:FW oA:CW oF:LA cA:TW",
    "FIN lost, other FIN": "cFx:FW oF:LA cF:LA oA:TW cA:TW",
    "last FIN lost": "cF:FW oA:CW oFx:LA oF:LA cA:TW",
    "last ACK lost": "cF:FW oA:CW oF:LA cAx:TW oF:TW cA:TW",
}
AGAIN = "the words on tcp_conntracks[]: a FIN in FIN_WAIT may be retransmitted, or be the other one's"
OUT_OF_SYNC = "nf_conntrack_tcp_packet() ignores a SYN for which the entry may be out of sync, until it is answered"
UNSURE = {
    "FIN lost": ("cFx:FW cF:FW oA:CW oF:LA cA:TW", "FW LA TW TW TW", AGAIN),
    "ACK of the FIN lost": ("cF:FW oAx:CW cF:CW oA:CW oF:LA cA:TW", "FW CW LA TW TW TW", AGAIN),
    "port reused after a reset by the server": ("<R:CL >N:SS <SA:SR >A:ES", "CL CL SR ES", OUT_OF_SYNC),
}
# How an entry of an established connection gets into each state.
UNTIL = {"ESTABLISHED": "", "FIN_WAIT": ">F:FW ", "CLOSE_WAIT": ">F:FW <A:CW ", "LAST_ACK": ">F:FW <A:CW <F:LA ",
         "TIME_WAIT": ">F:FW <A:CW <F:LA >A:TW "}
RESETS = {
    "refused": ">S:SS <RA:-",
    "refused, tried again": ">S:SS <RA:- >N:SS <SA:SR >A:ES",
    "reset by the client in SYN_RECV": ">S:SS <SA:SR >R:CL",
    "reset by the server in SYN_RECV": ">S:SS <SA:SR <RA:CL",
    **{f"reset by the {who} in {state}": OPEN + before + f"{way}R:CL" for state, before in UNTIL.items()
       for who, way in (("client", ">"), ("server", "<"))},
    **{f"reset by the {who} after data": OPEN + f"{way}D:ES {way}R:CL" for who, way in (("client", ">"), ("server", "<"))},
    **{f"reset by the {who} after lost data": OPEN + f"{way}Dx:ES {way}R:CL {back}A:CL {way}r:CL"
       for who, way, back in (("client", ">", "<"), ("server", "<", ">"))},
    **{f"reset by the {who} in its window": OPEN + f"{way}R+100:ES {back}A:ES {way}r:CL"
       for who, way, back in (("client", ">", "<"), ("server", "<", ">"))},
    **{f"old reset by the {who}": OPEN + f"{way}D:ES {back}A:ES {way}R-9:ES* {way}D:ES {back}A:ES"
       for who, way, back in (("client", ">", "<"), ("server", "<", ">"))},
    "reset that acknowledges nothing new in SYN_SENT": ">S:SS <RA^-5:SS* <SA:SR >A:ES",
}
# The same for a strict and a liberal tracker, each in a row of its own.
OUTSIDE = {
    **{f"reset by the {who} far beyond the window": OPEN + f"{way}D:ES {back}A:ES {way}R+500000:ES* {way}D:ES {back}A:ES"
       for who, way, back in (("client", ">", "<"), ("server", "<", ">"))},
    "reset that acknowledges too much in SYN_SENT": ">S:SS <RA^5:SS* <SA:SR >A:ES",
}
# The client has forgotten the connection; the server answers its SYN with what it has to say, and gets a reset: RFC 9293, 3.5.1.
REUSES = {
    "port reused in SYN_SENT": ">Sx:SS >N:SS <SA:SR >A:ES",
    "port reused in SYN_RECV": ">S:SS <SA:SR >N:SR <C:SR >r:CL" + REOPEN,
    "port reused in ESTABLISHED": OPEN + ">D:ES <A:ES >N:ES <C:ES >r:CL" + REOPEN,
    "port reused in FIN_WAIT": OPEN + ">Fx:FW >N:FW <C:CW >r:CL" + REOPEN,
    "port reused in FIN_WAIT of the server": OPEN + "<Fx:FW >N:FW <C:CW >r:CL" + REOPEN,
    "port reused in CLOSE_WAIT": OPEN + ">F:FW <Ax:CW >N:CW <C:CW >r:CL" + REOPEN,
    "port reused in LAST_ACK": OPEN + "<F:FW >A:CW >Fx:LA >N:LA <C:LA >r:CL" + REOPEN,
    "port reused in LAST_ACK, server's FIN lost": OPEN + ">F:FW <A:CW <Fx:LA >N:LA <C:LA >r:CL" + REOPEN,
    "port reused in TIME_WAIT": OPEN + UNTIL["TIME_WAIT"] + ">N:SS <SA:SR >A:ES",
    "port reused in TIME_WAIT, closed by the server": OPEN + "<F:FW >A:CW >F:LA <A:TW >N:SS <SA:SR >A:ES",
    "port reused after a reset by the client": OPEN + ">R:CL >N:SS <SA:SR >A:ES",
}
PICKED_UP = {
    "picked up at the client's data": ">D:ES <A:ES >D:ES <A:ES",
    "picked up at the server's data": "<D:ES >A:ES <D:ES >A:ES",
    "picked up at an ACK of the client": ">A:ES <D:ES >A:ES",
    "picked up at an ACK of the server": "<A:ES >D:ES <A:ES",
    **{f"picked up, then: {name}": ">D:ES <A:ES >D:ES <A:ES " + script.replace("c", way).replace("o", back)
       for name, script in CLOSES.items() for way, back in ((">", "<"),)},
}
BOTH = {f"{name}, by the {who}": OPEN + script.replace("c", way).replace("o", back)
        for name, script in CLOSES.items() for who, way, back in (("client", ">", "<"), ("server", "<", ">"))}
LIBERAL = {f"{name}, be_liberal": script for name, script in OUTSIDE.items()}
SCRIPTS = {**OPENINGS, **BOTH, **RESETS, **OUTSIDE, **LIBERAL, **REUSES, **PICKED_UP}

# Columns: be_liberal, loose, and the port of the service, by which the router translates addresses.
DATA, WINDOW = bytes(10), 60_000
PLAIN, TRANSLATED = 80, 81
COLUMNS = {
    f"{settings}{nat}": (liberal, loose, port)
    for nat, port in (("", PLAIN), (", SNAT and DNAT", TRANSLATED))
    for settings, liberal, loose in (("default", 0, 1), ("be_liberal", 1, 1), ("not loose", 0, 0))
}
SOURCE = "RFC 9293, 3.10; the words on tcp_conntracks[]"


def steps(script):
    """(segment, state, whether it is invalid) of each step."""
    for step in script.split():
        token, state = step.split(":")
        yield token, state.rstrip("*"), state.endswith("*")


def outcome(states, invalid):
    """What a cell shows: the states after each segment, whether the entry is assured, how many segments were invalid. An entry is assured
    once both sides have spoken."""
    last = states[-1]
    since = states[max((at for at, state in enumerate(states) if state == "SS"), default=0):]
    assured = last != "-" and "ES" in since
    return " ".join(states) + (", assured" if assured else "") + (f", {invalid} invalid" if invalid else "")


def expected(row, column):
    liberal, loose, port = COLUMNS[column]
    if row in PICKED_UP and port != PLAIN:
        return LeftOut("addresses are translated from the first packet on")
    if row in PICKED_UP and not loose:
        return Must(outcome(["-"] * len(PICKED_UP[row].split()), len(PICKED_UP[row].split())), "nf_conntrack-sysctl.rst, tcp_loose")
    if row in UNSURE:
        script, other, reason = UNSURE[row]
        opened = [state for _token, state, _invalid in steps(OPEN)]
        closed = [state for _token, state, _invalid in steps(script)]
        return OneOf((outcome(opened + closed, 0), outcome(opened + other.split(), 0)), reason)
    found = list(steps(SCRIPTS[row]))
    text = outcome([state for _token, state, _invalid in found], sum(invalid for _token, _state, invalid in found))
    return Must(text, "nf_conntrack-sysctl.rst, tcp_be_liberal: only resets out of window are invalid") if row in LIBERAL else text


ROWS = {**SCRIPTS, **{name: OPEN + script.replace("c", ">").replace("o", "<") for name, (script, _other, _reason) in UNSURE.items()}}
ORDERS = Table("conntrack.orders", "exchange", "tracker", SOURCE,
               {row: {column: expected(row, column) for column in COLUMNS if row not in {**OUTSIDE, **LIBERAL}
                      or (row in LIBERAL) == bool(COLUMNS[column][0])} for row in ROWS})


class TrackedEnd:
    """One end of a connection: its address, the other's as this end sees it, and its sequence numbers."""

    def __init__(self, injector, here, there, isn):
        self.injector, self.here, self.there = injector, here, there
        self.isn, self.snd_nxt, self.rcv_nxt, self.fin = isn, 0, 0, None
        self.active = False                 # it has sent the SYN itself
        self.pending = None                 # the next number after a SYN that it has not answered yet
        self.heard = 0                      # the last acknowledgment number

    def begin(self, isn):
        self.isn, self.snd_nxt, self.rcv_nxt, self.fin = isn, isn, 0, None

    def segment(self, token):
        """Flags, sequence number, acknowledgment number and length of this segment."""
        kind, _, offset = token.replace("+", " ").replace("-", " -").replace("^", " ^").partition(" ")
        seq_offset, ack_offset = (0, int(offset[1:])) if offset.startswith("^") else (int(offset or 0), 0)
        if kind in "SNn":
            return self.syn(kind)
        if kind == "SA":
            return self.syn_ack()
        if kind == "r":
            return "R", self.heard, 0, 0
        if kind in ("R", "RA") and not self.snd_nxt:
            return "RA", 0, self.pending + ack_offset, 0
        if kind in ("R", "RA"):
            return "RA", self.snd_nxt + seq_offset, self.rcv_nxt, 0
        if kind == "F":
            self.fin = self.snd_nxt if self.fin is None else self.fin
            return "FA", self.fin, self.rcv_nxt, 1
        return ("PA", self.snd_nxt, self.rcv_nxt, len(DATA)) if kind == "D" else ("A", self.snd_nxt, self.rcv_nxt, 0)

    def syn(self, kind):
        if kind == "N" or not self.active:
            self.begin(self.isn if kind == "S" else self.snd_nxt + 100_000)
        self.active = True
        return "S", self.isn, 0, 1

    def syn_ack(self):
        if self.pending is not None:
            if not self.active:
                self.begin((self.snd_nxt or self.isn) + 100_000)
            self.rcv_nxt, self.pending = self.pending, None
        return "SA", self.isn, self.rcv_nxt, 1

    def send(self, token):
        flags, seq, ack, length = sent = self.segment(token)
        self.injector.send(self.here, self.there, flags, seq, ack, DATA if flags == "PA" else b"", WINDOW)
        self.snd_nxt = max(self.snd_nxt, seq + length) if length else self.snd_nxt
        return sent

    def receive(self, flags, seq, ack, length):
        if "A" in flags:
            self.heard = ack
        if flags == "S" and seq + 1 != self.rcv_nxt:
            self.pending = seq + 1
        elif flags == "SA" and not self.rcv_nxt:
            self.rcv_nxt = seq + 1
        elif flags in ("PA", "FA") and seq == self.rcv_nxt:
            self.rcv_nxt += length


class Path:
    """The tracking router between the client and the server, which never answer by themselves, and the services that it translates."""

    def __init__(self, net, family, tracker):
        self.tracker, self.family = tracker, family
        self.client, self.server, self.router = net.nodes("client", "server", "router")
        self.injectors = [segment.Injector(host, family) for host in (self.client, self.server)]
        near, far = self.router.address(family, "client"), self.router.address(family, "server")
        ip = "ip" if family == socket.AF_INET else "ip6"
        self.service = {PLAIN: self.server.address(family), TRANSLATED: near}
        self.visible = {PLAIN: self.client.address(family), TRANSLATED: far}
        self.counted = 0
        for host in (self.client, self.server, self.router):
            host.nft("add table inet silence\nadd chain inet silence in { type filter hook input priority 0; }\n"
                     "add rule inet silence in meta l4proto tcp drop")
        self.router.nft(f"""
            add table inet orders
            add counter inet orders invalid
            add chain inet orders early {{ type filter hook prerouting priority -140; }}
            add rule inet orders early ct state invalid counter name invalid
            add chain inet orders to {{ type nat hook prerouting priority -100; }}
            add rule inet orders to {ip} daddr {near} tcp dport {TRANSLATED} dnat {ip} to {self.server.address(family)}
            add chain inet orders from {{ type nat hook postrouting priority 100; }}
            add rule inet orders from {ip} daddr {self.server.address(family)} tcp dport {TRANSLATED} snat {ip} to {far}
        """)

    def invalid(self):
        """How many segments were invalid since the last call."""
        listing = json.loads(self.router.nft("list counter inet orders invalid", json=True))
        before, self.counted = self.counted, sum(each["counter"]["packets"] for each in listing["nftables"] if "counter" in each)
        return self.counted - before

    def run(self, row, column, sport):
        """The exchange as the tracker saw it."""
        liberal, loose, dport = COLUMNS[column]
        self.tracker.pin(tcp_be_liberal=liberal, tcp_loose=loose)
        ends = {">": TrackedEnd(self.injectors[0], (self.client.address(self.family), sport), (self.service[dport], dport), isn=1000),
                "<": TrackedEnd(self.injectors[1], (self.server.address(self.family), dport), (self.visible[dport], sport), isn=500_000)}
        states, sent = [], []
        with self.client.capture("tcp") as at_client, self.server.capture("tcp") as at_server:
            for token, _state, _invalid in steps(ROWS[row]):
                way, lost = token[0], token.endswith("x")
                numbers = ends[way].send(token[1:].rstrip("x"))
                sent.append((way, numbers[0]))
                if not lost:
                    ends[{">": "<", "<": ">"}[way]].receive(*numbers)
                entry = self.tracker.entry(ends[">"].here, ends[">"].there)
                states.append(NAMES[entry.state] if entry else "-")
        seen = " ".join(states) + (", assured" if entry and entry.assured else "")
        if invalid := self.invalid():
            return f"{seen}, {invalid} invalid"
        for way, packets in ((">", at_server), ("<", at_client)):
            other = ends[{">": "<", "<": ">"}[way]]
            arrived = [packet.flags for packet in packets.received()
                       if (packet.source, packet.destination) == (other.there[0], other.here[0])]
            if arrived != [flags for each, flags in sent if each == way]:
                seen += f", {way} arrived {arrived}"
        return seen


@pytest.mark.table(ORDERS)
@pytest.mark.parametrize("row", ORDERS.rows)
def test_tracker_follows_every_legal_order_of_segments(net, family, row, table):
    """No segment that a TCP may send is invalid, and the entry is in the state that its segments mean, with and without translated
    addresses; all segments arrive. Resets that the other end ignores are invalid, or change no state."""
    with conntrack.tracking(net["router"]) as tracker:
        path = Path(net, family, tracker)
        for number, column in enumerate(table):
            table.saw(path.run(row, column, 30000 + number))
