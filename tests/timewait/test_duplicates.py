"""Late segments of a closed connection, and what keeps them from the next one (RFC 9293, 3.4.3; RFC 7323, 5)."""

import pytest

from fixtures.topologies import LAN
from netns import deliver
from netns.packets import segment
from netns.traffic.closing import fence, time_waits

pytestmark = pytest.mark.topology(LAN)

OLD_DATA = b"old data"


@pytest.mark.parametrize("timestamps", [1, 0])
def test_data_in_time_wait_gets_an_ack_and_changes_nothing(service, timestamps):
    """Duplicates and data beyond the FIN: each segment gets an ACK, without rate limit."""
    service.server.pin({"net.ipv4.tcp_timestamps": timestamps, "net.ipv4.tcp_rfc1337": 1})
    closed = service.closed(data=OLD_DATA)
    tsval = -1 if timestamps else None

    for seq in (-9, -9, 0, 1, 1000):
        answer = closed.answers("PA", seq, tsval, OLD_DATA).only()
        assert (answer.flags, answer.seq, answer.ack) == ("A", closed.snd_nxt, closed.rcv_nxt)
    assert time_waits(service.server) == 1
    assert service.server.counter("Tcp.PassiveOpens") == 1


@pytest.fixture
def reopened(service, request):
    """A closed connection, and the sockets of a new one on its port pair; with or without timestamps."""
    for host in (service.client, service.server):
        host.pin({"net.ipv4.tcp_timestamps": request.param})
    closed = service.closed(data=OLD_DATA)
    conn, peer = service.connect(closed.remote[1])
    return closed, conn, peer


@pytest.mark.parametrize("reopened", [1, 0], ids=["timestamps", "no timestamps"], indirect=True)
@pytest.mark.parametrize("flags, seq, payload", [("PA", -9, OLD_DATA), ("FA", -1, b""), ("R", 0, b""), ("A", 0, b"")])
def test_new_connection_ignores_late_segments_of_the_old_one(reopened, flags, seq, payload):
    """Their sequence numbers lie below the new window."""
    closed, conn, peer = reopened
    closed.answers(flags, seq, tsval=0 if closed.ts_recent else None, payload=payload)

    conn.sendall(b"new data")
    assert peer.recv(100) == b"new data"
    deliver(peer, conn, 1000)


def duplicate_in_window(service, reopened):
    """Send a segment with the new connection's sequence number and an old TSval; return what the server counts."""
    closed, conn, peer = reopened
    with service.client.capture("tcp") as packets:
        deliver(conn, peer, 1)
    data = packets.sent().which("with data", lambda packet: packet.length).only()
    # TCP_PAWS_WINDOW: one tick is no age yet, and both connections may fall into the same one.
    timestamps = (closed.ts_recent - 2, 0) if closed.ts_recent else None
    before = service.server.counters()
    segment.send(service.client, closed.remote, closed.local, "PA", data.seq + 1, data.ack, timestamps, OLD_DATA)
    fence(service.client, service.server, closed.local[0])
    return service.server.counters().since(before)


@pytest.mark.parametrize("reopened", [1], ids=["timestamps"], indirect=True)
def test_paws_drops_an_old_segment_inside_the_window(service, reopened):
    """PAWSEstab counts it (RFC 7323, 5)."""
    counted = duplicate_in_window(service, reopened)
    _closed, conn, peer = reopened

    assert counted["TcpExt.PAWSEstab"] == 1
    conn.sendall(b"new data")
    assert peer.recv(100) == b"new data"


@pytest.mark.parametrize("reopened", [0], ids=["no timestamps"], indirect=True)
def test_without_timestamps_an_old_segment_inside_the_window_is_accepted(service, reopened):
    """Nothing distinguishes it from new data: the reason for TIME_WAIT, and for timestamps."""
    counted = duplicate_in_window(service, reopened)
    _closed, _conn, peer = reopened

    assert counted.get("TcpExt.PAWSEstab", 0) == 0
    assert peer.recv(100) == OLD_DATA
