"""What each segment does in each synchronized state of a connection with timestamps (RFC 7323, 3.2, 4.3 and 5.3)."""

import pytest

from fixtures import rfc9293
from fixtures.rfc9293 import unchanged
from fixtures.table import Expected, OneOf, Table, allowed
from fixtures.topologies import LAN
from netns import listen
from netns.traffic.scripted import Peer
from netns.traffic.states import PINNED, RCV_WND, SEGMENTS, SYNCHRONIZED, Arrival

pytestmark = pytest.mark.topology(LAN)

KINDS = (
    "RST", "RST in the window", "SYN", "SYN in the window", "SYN of old sequence", "ACK", "ACK in the window", "ACK of old sequence",
    "ACK of old data", "ACK of unsent data", "data", "data in the window", "old data", "data that overlaps RCV.NXT",
    "data beyond the window", "data with ACK of old data", "data with ACK of unsent data", "FIN", "FIN of old sequence", "FIN with data",
)
NEWER = 1000
VARIANTS = {
    "old TSval": {"tsval": -1000}, "newer TSval": {"tsval": NEWER}, "foreign TSecr": {"tsecr": 2**30}, "no timestamps": {"tsval": None},
}


def old(state: str, segment: Arrival) -> Expected:
    """R1 of RFC 7323, 5.3: all but an RST is treated as not acceptable: acknowledged, and dropped."""
    if "R" in segment.flags:
        plain = rfc9293.expected(state, segment)
        reason = "RFC 7323, 5.2: no PAWS check of an RST; tcp_paws_reject() makes one in TIME-WAIT for an MSL"
        paws = (unchanged(state, "nothing"), unchanged(state, "nothing", "PAWSEstab +1"))
        return OneOf((*allowed(plain), *paws), reason) if state == "TIME-WAIT" else plain
    refused = unchanged(state, "ACK", "PAWSEstab +1")
    if state == "TIME-WAIT":
        return OneOf((refused, unchanged(state, "ACK")), "newer kernels count it in PAWSTimewait")
    if "S" in segment.flags:
        challenge = unchanged(state, "challenge ACK", "TCPSYNChallenge +1")
        return OneOf((challenge, refused), "RFC 5961, 4.2: of whatever number; RFC 7323, 5.3, R1: that, too, is an ACK")
    if segment.flags == "A" and not segment.length:
        # tcp_disordered_ack_check(): ACKs are reordered, and carry nothing that could be old. One of old sequence was an answer already.
        return OneOf((refused, unchanged(state, "nothing")), "RFC 7323, 5.3; tcp_disordered_ack_check()")
    return refused


def newer(state: str, segment: Arrival) -> Expected:
    """R3: a segment that is in the window and begins at or before the last number acknowledged gives TS.Recent its TSval, which the
    next answers echo. The kernel takes it with the ACK, so challenges may still echo the older one."""
    plain = rfc9293.expected(state, segment)
    seq, length = segment.seq + (RCV_WND if segment.edge else 0), segment.length + ("F" in segment.flags)
    echoes = f" with TSecr {NEWER:+}"
    values = []
    for value in allowed(plain):
        answer, _, rest = value.partition(", ")
        echoing = f"{answer}{echoes}, {rest}"
        if answer.startswith("SYN-ACK"):
            values.append(echoing)
        elif "ACK" not in answer or seq > 0 or seq + length < 0:
            values.append(value)
        elif answer.startswith("challenge") or seq + length <= 0 or state == "TIME-WAIT":
            values += [value, echoing]
        else:
            values.append(echoing)
    if state == "TIME-WAIT" and "S" in segment.flags and seq <= 0:
        values.append(f"SYN-ACK{echoes}, SYN-RECEIVED")         # RFC 6191
    return values[0] if len(values) == 1 else OneOf(tuple(values), "RFC 7323, 4.3; RFC 6191; tcp_replace_ts_recent()")


def without(state: str, segment: Arrival) -> Expected:
    """RFC 7323, 3.2: all but an RST should be dropped silently; the connection is not to be aborted."""
    plain = rfc9293.expected(state, segment)
    return plain if "R" in segment.flags else OneOf((unchanged(state, "nothing"), *allowed(plain)), "RFC 7323, 3.2: SHOULD")


RULES = {"old TSval": old, "newer TSval": newer, "foreign TSecr": rfc9293.expected, "no timestamps": without}
COLUMNS = {f"{kind}, {variant}": SEGMENTS[kind]._replace(**fields) for variant, fields in VARIANTS.items() for kind in KINDS}
TABLE = Table("tcp.timestamps", "state", "segment", "RFC 7323; RFC 9293, 3.10.7.4", {
    state: {f"{kind}, {variant}": RULES[variant](state, SEGMENTS[kind]) for variant in VARIANTS for kind in KINDS}
    for state in SYNCHRONIZED
})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_segment_with_timestamps_does_what_its_synchronized_state_says(net, family, row, table):
    """As without timestamps, and which TSval the answer echoes."""
    client, server = net.nodes("client", "server")
    server.pin({**PINNED, "net.ipv4.tcp_timestamps": 1})
    peer, listener = Peer(client, server, family), listen(server, family, 4096)

    for column in table:
        table.saw(SYNCHRONIZED[row](peer, listener, timestamps=True).arrives(COLUMNS[column]))
