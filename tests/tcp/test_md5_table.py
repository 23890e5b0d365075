"""Segments of a connection with an MD5 key, signed rightly, wrongly and not at all (RFC 2385)."""

import pytest

from fixtures import rfc9293
from fixtures.rfc9293 import unchanged
from fixtures.table import Expected, Table
from fixtures.topologies import LAN
from netns import listen
from netns.traffic.scripted import Peer
from netns.traffic.states import PINNED, SEGMENTS, SYNCHRONIZED

pytestmark = pytest.mark.topology(LAN)

KEY = b"a key"
# How a segment is signed, and what is counted for one that is dropped.
SIGNATURES = {"signed": (KEY, ""), "signed with another key": (b"another", "TCPMD5Failure +1"), "not signed": (None, "TCPMD5NotFound +1")}
KINDS = (
    "RST", "RST in the window", "RST-ACK", "SYN", "SYN in the window", "SYN of old sequence", "SYN-ACK", "ACK", "ACK beyond the window",
    "ACK of unsent data", "data", "data in the window", "old data", "data beyond the window", "FIN", "FIN of old sequence", "FIN with data",
    "no flags", "all flags",
)


def expected(state: str, kind: str, signature: str) -> Expected:
    """RFC 2385, 2: a segment whose signature is wrong or missing is dropped, and must not be answered."""
    counted = SIGNATURES[signature][1]
    return unchanged(state, "nothing", counted) if counted else rfc9293.expected(state, SEGMENTS[kind])


TABLE = Table("tcp.md5", "state", "segment", "RFC 2385, 2; RFC 9293, 3.10.7.4", {
    state: {f"{kind}, {signature}": expected(state, kind, signature) for signature in SIGNATURES for kind in KINDS}
    for state in SYNCHRONIZED
})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_segment_without_the_right_md5_signature_is_dropped_silently(net, family, row, table):
    """Whatever it is, in every synchronized state. A signed one does what it does without keys, and each answer is signed."""
    client, server = net.nodes("client", "server")
    server.pin(PINNED)
    peer, listener = Peer(client, server, family), listen(server, family, 4096)
    peer.key = KEY
    peer.sign(listener, KEY)

    for column in table:
        kind, _, signature = column.partition(", ")
        case = SYNCHRONIZED[row](peer, listener)
        case.signed, case.line.key = True, SIGNATURES[signature][0]
        table.saw(case.arrives(SEGMENTS[kind]))
