"""A port pair is reused while conntrack on the router has its old connection in TIME_WAIT."""

import pytest

from fixtures.topologies import ROUTED
from netns import TICK, approx_timer, deliver, stopwatch, timer_slack
from netns.hosts import firewall
from netns.netlink import conntrack
from netns.packets import segment
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(ROUTED)


def only_entry(tracker, service):
    entry = tracker.entries(service.family).only()
    return entry


def test_new_connection_replaces_the_conntrack_entry(service, tracker):
    """Packet counts start anew, and no packet is invalid."""
    closed = service.closed()
    before = only_entry(tracker, service)

    conn, peer = service.connect(closed.remote[1])

    after = only_entry(tracker, service)
    assert (before.state, after.state, after.ports) == ("TIME_WAIT", "ESTABLISHED", before.ports)
    assert (after.packets, tracker.invalid()) == ((2, 1), 0)
    deliver(conn, peer, 100_000)


@pytest.mark.parametrize("flags, seq", [("PA", -9), ("A", -1), ("FA", -1)])
def test_old_duplicate_does_not_replace_the_conntrack_entry(service, tracker, flags, seq):
    """The entry counts it, and the server's answer."""
    service.server.pin({"net.ipv4.tcp_rfc1337": 1})
    closed = service.closed(data=b"old data")
    before = only_entry(tracker, service)

    answer = closed.answers(flags, seq, tsval=0, payload=b"old data" if flags == "PA" else b"").only()

    after = only_entry(tracker, service)
    assert (answer.flags, after.packets[1]) == ("A", before.packets[1] + 1)
    assert after.packets[0] > before.packets[0]


def test_old_syn_evicts_the_conntrack_entry_in_time_wait(service, tracker):
    """Conntrack leaves the check to the hosts ("We ignore the conditions because we are in the TIME-WAIT state anyway",
    nf_conntrack_tcp_packet()). The server rejects the SYN; the next connection from the port is ESTABLISHED again."""
    closed = service.closed()
    before = only_entry(tracker, service)

    assert [answer.flags for answer in closed.answers("S", -1000)] == ["A"]
    entries = tracker.entries(service.family)
    assert not entries or sum(entries.only().packets) < sum(before.packets)

    conn, peer = service.connect(closed.remote[1])
    deliver(conn, peer, 1000)
    assert only_entry(tracker, service).state == "ESTABLISHED"


def test_reconnect_after_a_rejected_syn_passes_a_firewall_that_drops_invalid(net, service, measure):
    """The server's ACK and the client's RST must pass, or the client waits until TIME_WAIT ends.
    "netfilter: conntrack: handle tcp challenge acks during connection reuse"."""
    for host in (service.client, service.server):
        host.pin({"net.ipv4.tcp_timestamps": 0})
    with conntrack.tracking(net["router"], drop_invalid=True) as tracker:
        closed = service.closed()
        with stopwatch() as took:
            conn, peer = service.connect(closed.remote[1], isn=closed.rcv_nxt - 100_000)

        assert tracker.invalid() == 0
        assert measure("timewait.conntrack.reconnected", took.seconds, "s", timer_slack(2 * TICK)) == approx_timer(2 * TICK)
        deliver(conn, peer, 1000)


@pytest.mark.parametrize("liberal, invalid", [(0, 1), (1, 0)])
def test_segment_far_out_of_window_is_invalid_unless_be_liberal_is_set(service, tracker, liberal, invalid):
    """nf_conntrack_tcp_be_liberal marks only out-of-window RSTs as invalid. The server discards the segment either way."""
    tracker.pin(tcp_be_liberal=liberal)
    with service.client.capture("tcp") as packets:
        conn, peer = service.connect()
        deliver(conn, peer, 1)
    data = packets.sent()[-1]
    timestamps = (data.timestamps[0], 0)

    segment.send(service.client, conn.getsockname()[:2], service.address, "PA", data.seq + (1 << 30), data.ack,
                 timestamps, b"forged")
    fence(service.client, service.server, service.address[0])

    assert tracker.invalid() == invalid
    conn.sendall(b"real")
    assert peer.recv(100) == b"real"


@pytest.mark.parametrize("flags", [("FA", "FA"), ("FA", "RA"), ("FA", "PA")], ids="-".join)
def test_out_of_window_fin_or_rst_from_both_sides_shortens_the_entrys_timeout(service, tracker, flags):
    """After an invalid FIN or RST from each side the timeout is nf_conntrack_tcp_timeout_unacknowledged, 300 s, instead of five days;
    data does not shorten it ("netfilter: conntrack: reduce timeout when receiving out-of-window fin or rst")."""
    with service.client.capture("tcp") as packets:
        conn, peer = service.connect()
        deliver(conn, peer, 1)
    data, here, there = packets.sent()[-1], conn.getsockname()[:2], service.address
    far = 1 << 30

    # Neither host may answer.
    with firewall.drop(service.server, here[0]), firewall.drop(service.client, there[0]):
        segment.send(service.client, here, there, flags[0], data.seq + far, data.ack, (data.timestamps[0], 0))
        fence(service.client, service.server, there[0])
        segment.send(service.server, there, here, flags[1], data.ack + far, data.seq + 1, (data.timestamps[1], 0))
        fence(service.server, service.client, here[0])

    assert tracker.invalid() == 2
    left = tracker.timeout("ESTABLISHED" if "PA" in flags else "UNACKNOWLEDGED")
    assert left - 2 <= only_entry(tracker, service).timeout <= left
