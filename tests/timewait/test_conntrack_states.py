"""Conntrack on the router: its TCP states, and when entries expire (nf_conntrack-sysctl.rst)."""

import socket
from contextlib import suppress

import pytest

from fixtures.topologies import ROUTED
from netns import TICK, Expected, deliver, eventually, stopwatch
from netns.hosts import firewall
from netns.packets import segment

pytestmark = pytest.mark.topology(ROUTED)

# Seconds: Documentation/networking/nf_conntrack-sysctl.rst.
DEFAULTS = {
    "SYN_SENT": 120, "SYN_RECV": 60, "ESTABLISHED": 432000, "FIN_WAIT": 120, "CLOSE_WAIT": 60, "LAST_ACK": 30,
    "TIME_WAIT": 120, "CLOSE": 10,
}
EVERY = 0.1                                 # seconds between two polls
RESET_ON_CLOSE = (socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def states(tracker, service):
    return [entry.state for entry in tracker.entries(service.family)]


def await_state(tracker, service, state):
    """Wait until the only entry is in this state; return its timeout in seconds."""
    in_state = Expected(f"one in {state}", lambda entries: [entry.state for entry in entries] == [state])
    what = f"conntrack entries of {tracker.host.role}"
    return eventually(what, lambda: tracker.entries(service.family), in_state, within=5, every=EVERY).only().timeout


def test_conntrack_timeouts_have_the_documented_defaults(tracker):
    """A new network namespace starts with the built-in timeouts."""
    assert {state: tracker.timeout(state) for state in DEFAULTS} == DEFAULTS


def test_conntrack_entry_follows_the_states_of_its_connection(service, tracker):
    """Each state has its own timeout, nf_conntrack_tcp_timeout_*: here 100 s and more."""
    timeouts = {state: 100 + number for number, state in enumerate(DEFAULTS)}
    tracker.pin(**{f"tcp_timeout_{state.lower()}": seconds for state, seconds in timeouts.items()})
    client, server, seen = service.client, service.server, {}
    to_server, to_client = client.address(service.family), service.address[0]

    def note(state):
        seen[state] = timeouts[state] - await_state(tracker, service, state)

    conn = client.socket(service.family)
    conn.setblocking(False)
    with firewall.drop(client, to_client):
        with firewall.drop(server, to_server):
            conn.connect_ex(service.address)
            note("SYN_SENT")
        note("SYN_RECV")
    peer = service.accept()
    note("ESTABLISHED")
    peer.shutdown(socket.SHUT_WR)
    note("CLOSE_WAIT")
    with firewall.drop(server, to_server):
        conn.close()
        note("LAST_ACK")
    note("TIME_WAIT")

    tracker.flush()
    with client.capture("tcp") as packets:
        conn, peer = service.connect()
    last = packets.packets()[-1]
    with firewall.drop(client, to_client):
        # Not by TCP, which would retransmit it: conntrack takes a second FIN of either side for LAST_ACK.
        segment.send(server, service.address, conn.getsockname()[:2], "FA", last.ack, last.seq, (last.timestamps[1], 0))
        note("FIN_WAIT")
    conn.setsockopt(*RESET_ON_CLOSE)
    conn.close()
    note("CLOSE")

    assert set(seen) == set(timeouts)
    assert set(seen.values()) <= {0, 1}, f"seconds already gone from each timeout: {seen}"


@pytest.mark.parametrize("seconds", [2, pytest.param(120, marks=pytest.mark.virtual_clock("waits 2 minutes"))])
def test_conntrack_entry_in_time_wait_expires_after_its_timeout(service, tracker, clock, measure, seconds):
    """nf_conntrack_tcp_timeout_time_wait after the last packet. The default, 120 s, is twice the hosts' TIME_WAIT."""
    tracker.pin(tcp_timeout_time_wait=seconds)
    service.closed()
    with stopwatch() as took:
        clock.sleep(seconds - 0.5)
        assert states(tracker, service) == ["TIME_WAIT"]
        eventually("states of the router's conntrack entries", lambda: states(tracker, service), [], within=10, every=EVERY)

    measured = measure(f"timewait.conntrack.time_wait_{seconds}", took.seconds, "s", tolerance=EVERY + TICK)
    # An entry stores the jiffy at which it expires: no timer wheel.
    assert measured == pytest.approx(seconds, abs=0.5)


def test_conntrack_entry_of_a_reset_connection_has_a_timeout_of_10_seconds(service, tracker):
    """State CLOSE. Here a half-open health check: the client resets right after connect()."""
    conn = service.client.socket(service.family)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    conn.setsockopt(*RESET_ON_CLOSE)
    conn.connect(service.address)
    conn.close()

    assert await_state(tracker, service, "CLOSE") in (DEFAULTS["CLOSE"] - 1, DEFAULTS["CLOSE"])


@pytest.mark.parametrize("seconds, look", [
    (1, True), pytest.param(120, False, marks=pytest.mark.virtual_clock("waits for the conntrack garbage collector")),
])
def test_expired_conntrack_entries_of_100_connections_are_freed(service, tracker, clock, seconds, look):
    """nf_conntrack_count returns to 0: the next listing frees expired entries, or a worker does so within minutes
    (gc_worker(), net/netfilter/nf_conntrack_core.c)."""
    tracker.pin(tcp_timeout_time_wait=seconds)
    for _ in range(100):
        conn, peer = service.connect()
        peer.close(), conn.close()
    assert tracker.count() == 100

    if look:
        eventually("states of the router's conntrack entries", lambda: states(tracker, service), [], within=10, every=EVERY)
    else:
        clock.sleep(seconds + 180)

    assert tracker.count() == 0


def test_tcp_loose_picks_up_an_already_established_connection(service, tracker):
    """nf_conntrack_tcp_loose=1, the default: mid-stream packets create an entry, ESTABLISHED and ASSURED."""
    tracker.pin(tcp_loose=1)
    conn, peer = service.connect()
    tracker.flush()
    assert states(tracker, service) == []

    deliver(conn, peer, 1000)
    deliver(peer, conn, 1000)

    entry = tracker.entries(service.family).only()
    assert (entry.state, entry.assured, tracker.invalid()) == ("ESTABLISHED", True, 0)


def test_without_tcp_loose_only_a_syn_creates_an_entry(service, tracker):
    """nf_conntrack_tcp_loose=0: packets of a connection without an entry are invalid. A new connection is tracked."""
    tracker.pin(tcp_loose=0)
    conn, peer = service.connect()
    tracker.flush()

    deliver(conn, peer, 1000)

    assert (states(tracker, service), tracker.invalid() >= 2) == ([], True)
    service.connect()
    assert states(tracker, service) == ["ESTABLISHED"]


def send_until_it_stalls(sender):
    """The number of bytes that a connection takes while its peer does not read."""
    sender.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            count += sender.send(bytes(10_000))
    return count


def test_no_packet_of_a_transfer_is_invalid(service, tracker):
    """In both directions, also while the receiver does not read: a firewall may drop ct state invalid."""
    conn, peer = service.connect()
    for sender, reader in ((conn, peer), (peer, conn)):
        for _ in range(5):
            deliver(sender, reader, 30_000)
        waiting = send_until_it_stalls(sender)
        reader.settimeout(10)
        while waiting:
            waiting -= len(reader.recv(waiting))

    assert tracker.invalid() == 0
