"""What each segment does in each synchronized state (RFC 9293, 3.10.7.4; RFC 5961; RFC 1122, 4.2.2.13)."""

import pytest

from fixtures import rfc9293
from fixtures.table import Table
from fixtures.topologies import LAN
from netns import listen
from netns.traffic.scripted import Peer
from netns.traffic.states import CLOSED, PINNED, SEGMENTS, SYNCHRONIZED

pytestmark = pytest.mark.topology(LAN)

STATES = {**SYNCHRONIZED, **CLOSED}
TABLE = Table("tcp.segments", "state", "segment", "RFC 9293, 3.10.7.4; RFC 5961", {
    state: {name: rfc9293.expected(state, segment) for name, segment in SEGMENTS.items()} for state in STATES
})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_segment_does_what_its_synchronized_state_says(net, family, row, table):
    """The answer and its numbers, the state afterwards, what the socket gives, and the counters of resets and challenges."""
    client, server = net.nodes("client", "server")
    server.pin(PINNED)
    peer, listener = Peer(client, server, family), listen(server, family, 4096)

    for column in table:
        table.saw(STATES[row](peer, listener).arrives(SEGMENTS[column]))
