"""Data beyond the peer's own FIN."""

import pytest

from fixtures.topologies import LAN
from netns.packets import segment

pytestmark = pytest.mark.topology(LAN)


def test_out_of_order_data_beyond_a_fin_is_discarded(service):
    """It is queued and reported by SACK. After the FIN the ACK has no SACK block, and recv() returns EOF (tcp_fin())."""
    client, server = service.client, service.server
    for host in (client, server):
        host.pin({"net.ipv4.tcp_timestamps": 0, "net.ipv4.tcp_sack": 1})
    with client.capture("tcp") as packets:
        conn, peer = service.connect()
    ack, here = packets.sent()[-1], conn.getsockname()[:2]

    def answer_to(flags, ahead, payload=b""):
        """The relative ACK, and whether it has SACK blocks, for a segment `ahead` of the expected sequence number."""
        with server.capture("tcp") as packets:
            segment.send(client, here, service.address, flags, ack.seq + ahead, ack.ack, payload=payload)
            packets.until("a packet sent", lambda seen: seen.sent() != [], within=5)
        first = packets.sent()[0]
        return (first.ack - ack.seq) % 2**32, first.sacks

    assert answer_to("PA", 100, b"too far") == (0, True)
    assert answer_to("FA", 0) == (1, False)
    assert peer.recv(1) == b""
