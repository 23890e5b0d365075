"""TCP's counters of connections, by the state that a connection is in and when it ends there. Source: RFC 4022, tcpCurrEstab,
tcpActiveOpens, tcpPassiveOpens, tcpEstabResets and tcpAttemptFails."""

import pytest

from fixtures.table import Measured, Table
from fixtures.topologies import LAN
from netns import listen
from netns.traffic import opening, states
from netns.traffic.scripted import Peer
from netns.traffic.states import PINNED, SEGMENTS

pytestmark = pytest.mark.topology(LAN)

COUNTERS = ("CurrEstab", "ActiveOpens", "PassiveOpens", "EstabResets", "AttemptFails")
WHEN = ("in the state", "after a reset")
# How the host comes into the state: by its own connect(), or by a listener.
ACTIVE = {"SYN-SENT": opening.syn_sent, "SYN-RECEIVED, simultaneous open": opening.crossed}
RECEIVED = {"SYN-RECEIVED": opening.syn_received, "SYN-RECEIVED, TCP_FASTOPEN": opening.fast_opened}
PASSIVE = {**states.SYNCHRONIZED, **states.CLOSED}
CURRENT = ("ESTABLISHED", "CLOSE-WAIT")


def expected(state, counter, when):
    current = state.partition(",")[0] in CURRENT
    ended = when == "after a reset"
    if state in RECEIVED and counter != "CurrEstab":
        return Measured("RFC 4022 counts the handshake, for which the kernel has no socket yet")
    if counter == "AttemptFails":
        return str(int(ended and state in ACTIVE))
    return str(int({"CurrEstab": current and not ended, "ActiveOpens": state in ACTIVE, "PassiveOpens": state in PASSIVE,
                    "EstabResets": current and ended}[counter]))


TABLE = Table("tcp.counted", "state", "counter", "RFC 4022", {
    state: {f"{counter} {when}": expected(state, counter, when) for when in WHEN for counter in COUNTERS}
    for state in (*ACTIVE, *RECEIVED, *PASSIVE)})


def made(state, peer, listener):
    if state in PASSIVE:
        return PASSIVE[state](peer, listener)
    return {**ACTIVE, **RECEIVED}[state](peer)


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_connection_is_counted_by_its_state(net, family, row, table):
    """From the beginning of the connection on; the reset is exactly in sequence."""
    client, server = net.nodes("client", "server")
    server.pin({**PINNED, "net.ipv4.tcp_fastopen": 0x203, "net.ipv4.tcp_rfc1337": 0})
    peer, listener = Peer(client, server, family), listen(server, family, 4096)
    before = server.counters()
    case = made(row, peer, listener)
    seen = {"in the state": server.counters().since(before)}
    case.arrives(SEGMENTS["RST-ACK" if row == "SYN-SENT" else "RST"])
    seen["after a reset"] = server.counters().since(before)
    for column in table:
        counter, _, when = column.partition(" ")
        table.saw(str(seen[when][f"Tcp.{counter}"]))
