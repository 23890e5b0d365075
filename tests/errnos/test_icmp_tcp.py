"""ICMP errors for TCP: each aborts a connection attempt, none ends an established connection (RFC 1122, 4.2.3.9)."""

import pytest

from fixtures.icmp_errors import ERRORS, HOST_UNREACHABLE, IGNORED, V4, V6, numbers
from fixtures.topologies import ROUTED
from netns import deliver, eventually, tcp_info, tcp_pair
from netns.attempt import WAYS, attempt, errno_name, events, refused, so_error
from netns.packets import errqueue, icmp

pytestmark = pytest.mark.topology(ROUTED)

# Fragmentation Needed, Packet Too Big and ignored messages: these end nothing.
HARMLESS = {V4: ((3, 4), *IGNORED[V4]), V6: ((2, 0), *IGNORED[V6])}
MTU = 1300


def answer_syn(net, conn, packets, kind, code):
    """The router answers the client's SYN after connect() has released the socket lock: TCP_INFO waits for that. The SYN may leave
    later, after neighbour resolution."""
    eventually("state of the client's connection", lambda: tcp_info(conn).state, "SYN_SENT", within=5)
    packets.until("the client's SYN", lambda seen: seen.sent(), within=5)
    icmp.send_error(net["router"], net["client"], kind, code, icmp.quote(packets.sent()[-1]), rest=MTU)


def connecting(net, family, way, silence, kind, code, prepare=lambda conn: None):
    """A socket that got the ICMP error while connecting, and the outcome."""
    conn = net["client"].socket(family)
    prepare(conn)
    with net["client"].capture("tcp") as packets:
        outcome = attempt(conn, silence, way, lambda: answer_syn(net, conn, packets, kind, code))
    return conn, outcome


@pytest.mark.parametrize("way", WAYS)
def test_each_icmp_error_aborts_a_connection_attempt_at_once(net, family, silence, way):
    """Linux treats all of them as hard for a SYN, also those that RFC 1122 calls soft (RFC 5461, 2.1): no timeout, no
    retransmitted SYN. "tcp: no longer abort SYN_SENT when receiving some ICMP" changed that and was reverted."""
    seen, slow = {}, {}
    for kind, code in ERRORS[family]:
        conn, outcome = connecting(net, family, way, silence, kind, code)
        seen[kind, code] = outcome.error
        if outcome.seconds >= 0.9 or tcp_info(conn).state != "CLOSE":
            slow[kind, code] = outcome
        conn.close()

    assert seen == numbers(family)
    assert slow == {}
    assert net["client"].counter("TcpExt.TCPTimeouts") == 0


def test_epoll_reports_err_and_hup_for_a_failed_connection_attempt(net, family, silence, measure):
    """IN, OUT, ERR, HUP and RDHUP until SO_ERROR is read; after that IN, OUT and HUP. Since 5.8, IPv4 queues the error
    even without IP_RECVERR, and ERR stays until the error queue is read ("tcp: allow
    traceroute -Mtcp for unpriv users"): that is measured."""
    conn = net["client"].socket(family)
    conn.setblocking(False)
    with net["client"].capture("tcp") as packets:
        conn.connect_ex(silence)
        before = events(conn)
        answer_syn(net, conn, packets, *HOST_UNREACHABLE[family])

    assert before == set()
    assert events(conn, within=5) == {"IN", "OUT", "ERR", "HUP", "RDHUP"}
    assert so_error(conn) == "EHOSTUNREACH"
    measure("errno.queued_without_recverr", int(errqueue.pending(conn) is not None), "errors")
    assert events(conn) == {"IN", "OUT", "HUP", "RDHUP"}


def test_packet_too_big_and_ignored_icmp_do_not_abort_a_connection_attempt(net, family, silence):
    """Packet Too Big and Fragmentation Needed only report an MTU; IPv4 ignores source quench, unknown codes and
    reassembly timeouts (icmp_unreach()). The socket stays in SYN_SENT, without an error."""
    states = {}
    for kind, code in HARMLESS[family]:
        conn = net["client"].socket(family)
        conn.setblocking(False)
        with net["client"].capture("tcp") as packets:
            conn.connect_ex(silence)
            answer_syn(net, conn, packets, kind, code)
        states[kind, code] = (tcp_info(conn).state, so_error(conn), events(conn))
        conn.close()

    assert states == {each: ("SYN_SENT", "", set()) for each in HARMLESS[family]}


def test_icmp_error_that_quotes_another_sequence_number_is_ignored(net, family, silence):
    """OutOfWindowIcmps counts it (RFC 5927, 4.1)."""
    client = net["client"]
    conn = client.socket(family)
    conn.setblocking(False)
    with client.capture("tcp") as packets:
        conn.connect_ex(silence)
        packets.until("a packet sent", lambda seen: seen.sent(), within=5)
    forged = bytearray(icmp.quote(packets.sent()[0]))
    forged[(20 if family == V4 else 40) + 4] ^= 0x55
    icmp.send_error(net["router"], client, *HOST_UNREACHABLE[family], bytes(forged))

    assert (tcp_info(conn).state, so_error(conn)) == ("SYN_SENT", "")
    assert client.counter("TcpExt.OutOfWindowIcmps") == 1


def test_error_queue_describes_the_icmp_error_that_aborted_an_attempt(net, family, silence):
    """With IP_RECVERR: the errno of connect(), type, code, the router as offender, and the SYN's destination
    ("tcp: allow traceroute -Mtcp for unpriv users")."""
    seen, expected = {}, {}
    for (kind, code), error in numbers(family).items():
        conn, outcome = connecting(net, family, "nonblocking", silence, kind, code, errqueue.receive_errors)
        queued = errqueue.next_error(conn)
        seen[kind, code] = (outcome.error, errno_name(queued.errno), queued.origin, queued.kind, queued.code, queued.offender,
                            queued.destination)
        origin = errqueue.Origin.ICMP if family == V4 else errqueue.Origin.ICMP6
        expected[kind, code] = (error, error, origin, kind, code, net["router"].address(family, "client"), silence)
        conn.close()

    assert seen == expected


@pytest.mark.parametrize("recverr", [False, True], ids=("plain", "recverr"))
def test_established_connection_survives_every_icmp_error(net, family, recverr):
    """RFC 1122, 4.2.3.9; RFC 5927, 5.2. SO_ERROR returns each error; only with IP_RECVERR does epoll report it."""
    client, server, router = net.nodes("client", "server", "router")
    conn, peer = tcp_pair(client, server, family)
    errqueue.receive_errors(conn, recverr)
    with client.capture("tcp") as packets:
        deliver(conn, peer, 1)
    quoted = bytearray(icmp.quote(packets.sent().which("with 1 byte of data", lambda packet: packet.length == 1)[0]))
    # Quote the next byte, which could be in flight.
    at = (20 if family == V4 else 40) + 4
    quoted[at:at + 4] = ((int.from_bytes(quoted[at:at + 4], "big") + 1) % 2**32).to_bytes(4, "big")

    seen, woken = {}, {}
    for kind, code in ERRORS[family]:
        icmp.send_error(router, client, kind, code, bytes(quoted))
        woken[kind, code] = "ERR" in events(conn)
        seen[kind, code] = so_error(conn)

    assert seen == numbers(family)
    assert woken == {each: recverr for each in ERRORS[family]}
    assert client.counter("TcpExt.OutOfWindowIcmps") == 0
    deliver(conn, peer, 5000)
    deliver(peer, conn, 5000)


def test_recv_with_recverr_reports_an_icmp_error_once(net, family):
    """recv() fails with EHOSTUNREACH; then SO_ERROR is clear, and the connection stays ESTABLISHED."""
    client, server, router = net.nodes("client", "server", "router")
    conn, peer = tcp_pair(client, server, family)
    errqueue.receive_errors(conn)
    with client.capture("tcp") as packets:
        deliver(conn, peer, 1)
    data = packets.sent().which("with 1 byte of data", lambda packet: packet.length == 1)[0]
    with client.capture("tcp") as packets:
        # This byte gets no ACK: it is in flight when the error arrives.
        router.run(["ip", "route", "add", "blackhole", server.address(family)])
        conn.send(b"x")
        packets.until("a packet sent", lambda seen: seen.sent(), within=5)
    assert packets.sent()[0].relative_seq == data.relative_seq + 1
    icmp.send_error(router, client, *HOST_UNREACHABLE[family], icmp.quote(packets.sent()[0]))

    conn.settimeout(5)
    with refused("EHOSTUNREACH", "recv() after the ICMP error"):
        conn.recv(1)
    assert (so_error(conn), tcp_info(conn).state) == ("", "ESTABLISHED")

    router.run(["ip", "route", "del", "blackhole", server.address(family)])
    peer.settimeout(10)
    assert peer.recv(1) == b"x"
    deliver(peer, conn, 1000)
