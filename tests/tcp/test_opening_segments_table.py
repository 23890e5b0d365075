"""What each segment does before a connection is synchronized (RFC 9293, 3.10.7.1 to 3.10.7.4), for listeners of each kind."""

import pytest

from fixtures.table import Expected, LeftOut, Must, OneOf, Table
from fixtures.topologies import LAN
from netns.traffic import opening
from netns.traffic.scripted import Peer
from netns.traffic.states import PINNED, RCV_WND, SEGMENTS, Arrival

pytestmark = pytest.mark.topology(LAN)

# A server that takes data in a SYN without a cookie (ip-sysctl.rst, tcp_fastopen).
EXTRA = {"net.ipv4.tcp_fastopen": 0x203}
STATES = {
    "CLOSED": opening.closed, "LISTEN": opening.listening, "LISTEN, TCP_DEFER_ACCEPT": opening.deferring,
    "LISTEN, TCP_FASTOPEN": opening.fast_opening, "LISTEN, accept queue full": opening.full, "SYN-SENT": opening.syn_sent,
    "SYN-RECEIVED": opening.syn_received,
    "SYN-RECEIVED, TCP_DEFER_ACCEPT": lambda peer: opening.syn_received(peer, opening.deferring),
    "SYN-RECEIVED, accept queue full": opening.overtaken, "SYN-RECEIVED, listener closed": opening.deserted,
    "SYN-RECEIVED, listener migrated": opening.migrated, "SYN-RECEIVED, simultaneous open": opening.crossed,
    "SYN-RECEIVED, TCP_FASTOPEN": opening.fast_opened,
}
EDGES = "RFC 9293, 3.10.7.4, first; tcp_in_window(): the right edge is inside for a segment without data"


def reset_for(segment: Arrival) -> str:
    """RFC 9293, 3.5.2, group 1: an RST with the number that the segment acknowledges, else one that acknowledges the segment."""
    return "RST" if "A" in segment.flags else "RST-ACK"


def closed(segment: Arrival) -> Expected:
    """RFC 9293, 3.10.7.1."""
    return "nothing, CLOSED" if "R" in segment.flags else f"{reset_for(segment)}, CLOSED"


def listening(state: str, segment: Arrival) -> Expected:
    """RFC 9293, 3.10.7.2."""
    if "R" in segment.flags:
        return "nothing, LISTEN"
    if "A" in segment.flags:
        return "RST, LISTEN"
    if "S" not in segment.flags:
        return "nothing, LISTEN"
    if state.endswith("full"):
        return Must("nothing, LISTEN", "listen(2): the request may be ignored so that a later reattempt succeeds")
    if "F" in segment.flags:
        return OneOf(("nothing, LISTEN", "SYN-ACK, SYN-RECEIVED"), "RFC 9293, 3.10.7.2: other controls are for SYN-RECEIVED, or dropped")
    if state.endswith("FASTOPEN") and segment.length:
        return Must(f"SYN-ACK of {segment.length + 1}, SYN-RECEIVED, accepted, {segment.length} bytes",
                    "RFC 7413, 4.2.2; ip-sysctl.rst, tcp_fastopen, 0x200")
    return "SYN-ACK, SYN-RECEIVED"


def syn_sent(segment: Arrival) -> Expected:
    """RFC 9293, 3.10.7.3."""
    reset, syn = "R" in segment.flags, "S" in segment.flags
    if "A" in segment.flags:
        if segment.ack - segment.una != 0:
            return "nothing, SYN-SENT" if reset else "RST, SYN-SENT"
        if reset:
            return "nothing, CLOSED, ECONNREFUSED, AttemptFails +1"
        if syn and "F" in segment.flags:
            return OneOf(("ACK +1, ESTABLISHED", "ACK +2, CLOSE-WAIT, EOF"), "RFC 9293, 3.10.7.3, fifth: other controls may be processed")
        return "ACK +1, ESTABLISHED" if syn else "nothing, SYN-SENT"
    return "SYN-ACK, SYN-RECEIVED" if syn and not reset else "nothing, SYN-SENT"


def taken(state: str, segment: Arrival, seq: int) -> str:
    """RFC 9293, 3.10.7.4, fifth and on, for an acceptable ACK."""
    fin, end = "F" in segment.flags, seq + segment.length
    established = [] if "open" in state or "OPEN" in state else ["accepted"]
    if seq > 0 or end + fin <= 0:
        return ", ".join(["ACK" if segment.length or fin else "nothing", "ESTABLISHED", *established])
    given = [*([f"{end} bytes"] if end else []), *(["EOF"] if fin else [])]
    return ", ".join([f"ACK {end + fin:+}" if end + fin else "nothing", "CLOSE-WAIT" if fin else "ESTABLISHED", *established, *given])


def outcome(state: str, segment: Arrival, seq: int) -> str:
    """What a segment with an acceptable ACK does, if the accept queue has room. Else the ACK is ignored, so that the connection recovers
    (ip-sysctl.rst, tcp_abort_on_overflow)."""
    return "nothing, SYN-RECEIVED" if state.endswith("full") else taken(state, segment, seq)


def syn_received(state: str, segment: Arrival) -> Expected:
    """RFC 9293, 3.10.7.4, in SYN-RECEIVED."""
    passive, fast_open = "simultaneous" not in state, state.endswith("FASTOPEN")
    seq = segment.seq + (RCV_WND if segment.edge else 0)
    same = "SYN-RECEIVED"
    length = segment.length + sum(flag in segment.flags for flag in "SF")
    last = seq + max(length, 1) - 1
    strict = 0 <= seq < RCV_WND or 0 <= last < RCV_WND
    over = "nothing, LISTEN, AttemptFails +1" if passive else "nothing, CLOSED, ECONNRESET, AttemptFails +1"
    if fast_open:
        over = "nothing, LISTEN, ECONNRESET, AttemptFails +1"
    if "R" in segment.flags:
        if seq == 0:
            # RFC 9293 says "connection refused" of an active open; POSIX has both for connect().
            return over if passive else OneOf((over, over.replace("RESET", "REFUSED")), "RFC 9293, 3.10.7.4, second; POSIX, connect()")
        if 0 < seq < RCV_WND:
            return Must(f"challenge ACK, {same}", "RFC 5961, 3.2; RFC 9293, 3.10.7.4, second")
        return OneOf((f"nothing, {same}", f"challenge ACK, {same}"), EDGES) if seq == RCV_WND else f"nothing, {same}"
    if "S" in segment.flags and not passive:
        challenge = f"challenge ACK, {same}, TCPSYNChallenge +1"
        if segment.flags == "SA" and seq == -1:
            return OneOf((challenge, "ACK, ESTABLISHED", "nothing, ESTABLISHED"), "RFC 9293, 3.5, figure 7; RFC 5961, 4.2")
        return challenge
    if segment.flags == "S" and seq == -1 and not fast_open:
        return Must(f"SYN-ACK, {same}", "tcp_check_req(): a pure SYN sent again")
    wrong = "A" in segment.flags and segment.ack - segment.una != 0
    if not strict and not wrong:
        refused = f"ACK, {same}"
        # A whole socket takes what fits after truncation, a request a segment without data.
        whole = not passive or fast_open
        lenient = seq == RCV_WND and (whole or not length) or seq + length == 0 and whole
        return OneOf((refused, outcome(state, segment, seq)), EDGES) if lenient else refused
    if "S" in segment.flags:
        # Fourth: back to LISTEN; RFC 793 sent a reset too.
        values = (f"{reset_for(segment)}, LISTEN, AttemptFails +1", over)
        if fast_open:
            values = (f"{reset_for(segment)}, {same}",)         # tcp_check_req(): the connection is not reset unless it must be
        return OneOf(values, "RFC 9293, 3.10.7.4, fourth; RFC 793, 3.9, fourth; tcp_check_req()")
    if "A" not in segment.flags:
        return f"nothing, {same}"
    if wrong:
        return f"RST, {same}"
    if state.endswith("DEFER_ACCEPT") and not length:
        source = "tcp(7), TCP_DEFER_ACCEPT: only data awakens the listener"
        return OneOf((f"nothing, {same}", taken(state, segment, seq)), f"{source}; this ACK follows data that is not here") if seq else \
            Must(f"nothing, {same}", source)
    return outcome(state, segment, seq)


def expected(state: str, segment: Arrival) -> Expected:
    if state in ("CLOSED", "SYN-RECEIVED, listener closed"):
        return closed(segment)
    no_window = state.startswith("LISTEN") or state == "SYN-SENT"
    if no_window and (segment.edge or segment.seq):
        return LeftOut("no sequence number is expected yet")
    if state.startswith("LISTEN"):
        return listening(state, segment)
    return syn_sent(segment) if state == "SYN-SENT" else syn_received(state, segment)


TABLE = Table("tcp.opening_segments", "state", "segment", "RFC 9293, 3.10.7", {
    state: {name: expected(state, segment) for name, segment in SEGMENTS.items()} for state in STATES
})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_segment_does_what_its_opening_state_says(net, family, row, table):
    """The answer and its numbers, the state afterwards, what accept(2) and the socket give, and the counters of resets and challenges."""
    client, server = net.nodes("client", "server")
    server.pin({**PINNED, **EXTRA})
    peer = Peer(client, server, family)
    if "migrated" in row:
        server.pin({"net.ipv4.tcp_migrate_req": 1})
        assert opening.migrated(peer).arrives(SEGMENTS["ACK"]) == "nothing, ESTABLISHED, accepted", "requests do not migrate"

    for column in table:
        table.saw(STATES[row](peer).arrives(SEGMENTS[column]))
