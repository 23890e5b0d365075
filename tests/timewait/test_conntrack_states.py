"""A tracker between client and server follows their connection, and forgets it in time (nf_conntrack-sysctl.rst)."""

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
EVERY = 0.1                                 # seconds between two looks, each of which runs a command
RESET_ON_CLOSE = (socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def states(tracker, service):
    return [entry.state for entry in tracker.entries(service.family)]


def reaches(tracker, service, state):
    """Wait until the one entry is in this state; the seconds that it is then kept for."""
    it_is_there = Expected(f"one in {state}", lambda entries: [entry.state for entry in entries] == [state])
    what = f"conntrack entries of {tracker.host.role}"
    return eventually(what, lambda: tracker.entries(service.family), it_is_there, within=5, every=EVERY).only().timeout


def test_each_state_is_kept_as_long_as_documented(tracker):
    """A new network namespace has the built-in timeouts, whatever the machine's first one was set to."""
    assert {state: tracker.timeout(state) for state in DEFAULTS} == DEFAULTS


def test_an_entry_goes_through_the_states_of_its_connection(service, tracker):
    """And each has a timeout of its own: nf_conntrack_tcp_timeout_*, here 100 s and more."""
    timeouts = {state: 100 + number for number, state in enumerate(DEFAULTS)}
    tracker.pin(**{f"tcp_timeout_{state.lower()}": seconds for state, seconds in timeouts.items()})
    client, server, seen = service.client, service.server, {}
    to_server, to_client = client.address(service.family), service.address[0]

    def note(state):
        seen[state] = timeouts[state] - reaches(tracker, service, state)

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

    tracker.forget()
    with client.capture("tcp") as packets:
        conn, peer = service.connect()
    last = packets.packets()[-1]
    with firewall.drop(client, to_client):
        # By no TCP, which would repeat it: a second FIN, of whichever side, is LAST_ACK to the tracker.
        segment.send(server, service.address, conn.getsockname()[:2], "FA", last.ack, last.seq, (last.timestamps[1], 0))
        note("FIN_WAIT")
    conn.setsockopt(*RESET_ON_CLOSE)
    conn.close()
    note("CLOSE")

    assert set(seen) == set(timeouts)
    assert set(seen.values()) <= {0, 1}, f"too short by so many seconds: {seen}"


@pytest.mark.parametrize("seconds", [2, pytest.param(120, marks=pytest.mark.virtual_clock("two minutes have to pass"))])
def test_an_entry_in_time_wait_is_forgotten_after_its_timeout(service, tracker, clock, measure, seconds):
    """nf_conntrack_tcp_timeout_time_wait after the last packet: twice as long as the hosts themselves remember it."""
    tracker.pin(tcp_timeout_time_wait=seconds)
    service.closed()
    with stopwatch() as took:
        clock.sleep(seconds - 0.5)
        assert states(tracker, service) == ["TIME_WAIT"]
        eventually("states of the router's conntrack entries", lambda: states(tracker, service), [], within=10, every=EVERY)

    measured = measure(f"timewait.conntrack.time_wait_{seconds}", took.seconds, "s", tolerance=EVERY + TICK)
    # Entries carry the jiffy of their end and are looked at by it: no timer wheel.
    assert measured == pytest.approx(seconds, abs=0.5)


def test_a_reset_connection_is_kept_for_ten_seconds_only(service, tracker):
    """CLOSE: nobody has anything to say any more. Not even a half-open check stays longer."""
    conn = service.client.socket(service.family)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    conn.setsockopt(*RESET_ON_CLOSE)
    conn.connect(service.address)
    conn.close()

    assert reaches(tracker, service, "CLOSE") in (DEFAULTS["CLOSE"] - 1, DEFAULTS["CLOSE"])


@pytest.mark.parametrize("seconds, look", [
    (1, True), pytest.param(120, False, marks=pytest.mark.virtual_clock("a worker of the kernel has to come round")),
])
def test_no_entry_is_left_of_many_connections(service, tracker, clock, seconds, look):
    """The count of entries goes back to zero: what has expired is cleared away by the next look, or by a worker, within
    minutes (gc_worker(), net/netfilter/nf_conntrack_core.c)."""
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


def test_an_idle_connection_is_picked_up_again_where_its_entry_is_gone(service, tracker):
    """tcp_loose=1, the default: a packet from the middle of a connection is taken for one that works."""
    tracker.pin(tcp_loose=1)
    conn, peer = service.connect()
    tracker.forget()
    assert states(tracker, service) == []

    deliver(conn, peer, 1000)
    deliver(peer, conn, 1000)

    entry = tracker.entries(service.family).only()
    assert (entry.state, entry.assured, tracker.invalid()) == ("ESTABLISHED", True, 0)


def test_without_tcp_loose_only_a_syn_begins_an_entry(service, tracker):
    """tcp_loose=0: each packet of a forgotten connection is invalid; the next connection is tracked as ever."""
    tracker.pin(tcp_loose=0)
    conn, peer = service.connect()
    tracker.forget()

    deliver(conn, peer, 1000)

    assert (states(tracker, service), tracker.invalid() >= 2) == ([], True)
    service.connect()
    assert states(tracker, service) == ["ESTABLISHED"]


def send_until_it_stalls(sender):
    """How many bytes went into a connection whose other side does not read."""
    sender.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            count += sender.send(bytes(10_000))
    return count


def test_no_packet_of_a_transfer_is_invalid(service, tracker):
    """Whichever side sends, and whether the other one reads or not: a firewall that drops what is invalid lets all of it pass."""
    conn, peer = service.connect()
    for sender, reader in ((conn, peer), (peer, conn)):
        for _ in range(5):
            deliver(sender, reader, 30_000)
        waiting = send_until_it_stalls(sender)
        reader.settimeout(10)
        while waiting:
            waiting -= len(reader.recv(waiting))

    assert tracker.invalid() == 0
