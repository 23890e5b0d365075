"""What a port answers to the first segment that it gets from a stranger, by the port's state."""

import pytest

from fixtures.table import LeftOut, Measured, OneOf, Table
from fixtures.topologies import LAN
from netns import listen
from netns.packets.segment import send
from netns.traffic.closing import fence

SEGMENTS = {"SYN": "S", "ACK": "A", "FIN": "F", "RST": "R", "SYN RST": "SR", "SYN FIN": "SF"}
FIRST = Table("tcp.first_segment", "port", "first segment", "RFC 9293 3.10.7.1 and 3.10.7.2", {
    "CLOSED": {
        **{name: "nothing" if "RST" in name else "RST" for name in SEGMENTS},
        "none": LeftOut("no segment, no answer"),
    },
    "LISTEN": {
        "SYN": "SYN-ACK",
        "ACK": "RST",
        **dict.fromkeys(("RST", "SYN RST", "FIN"), "nothing"),
        "SYN FIN": OneOf(("SYN-ACK", "nothing"), "RFC 9293 3.10.7.2: what comes with a SYN should be queued, and may be left out"),
    },
    "LISTEN, without room": {
        "SYN": Measured("no document says what a listener without room answers"),
    },
})


@pytest.mark.table(FIRST)
@pytest.mark.topology(LAN)
@pytest.mark.parametrize("row", FIRST.rows)
def test_port_answers_a_first_segment_as_its_state_says(net, family, row, table):
    """CLOSED resets all but resets, LISTEN answers a SYN, resets an ACK and drops the rest (RFC 9293, 3.10.7.1 and 3.10.7.2)."""
    client, server = net.nodes("client", "server")
    server.pin({"net.ipv4.tcp_syncookies": 0, "net.ipv4.tcp_syn_retries": 1})
    listener = listen(server, family, backlog=0 if "without room" in row else 128)
    target = listener.getsockname()[:2]
    if row == "CLOSED":
        listener.close()
    elif "without room" in row:
        client.socket(family).connect(target)

    for source, column in enumerate(table, 20_000):     # each segment from a port of its own
        with server.capture("tcp") as packets:
            send(client, (client.address(family), source), target, SEGMENTS[column], seq=1000, ack=2000)
            fence(client, server, target[0])
        table.saw(" ".join(words(packet.flags) for packet in packets.sent()) or "nothing")


def words(flags: str) -> str:
    return "RST" if "R" in flags else "SYN-ACK" if flags == "SA" else flags
