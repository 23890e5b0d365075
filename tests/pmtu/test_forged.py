"""Forged ICMP errors: which of them a host accepts (RFC 5927, RFC 8201 section 6)."""

import socket
import struct

import pytest

from fixtures.topologies import ROUTED
from netns import deliver, tcp_info, tcp_pair
from netns.packets import icmp, pmtu

pytestmark = pytest.mark.topology(ROUTED)

IN_ERRORS = {socket.AF_INET: "Icmp.InErrors", socket.AF_INET6: "Icmp6.InErrors"}
SOURCE_PORT, SEQUENCE = 0, 4


@pytest.fixture
def flight(net, family):
    """A connection that has delivered one byte: client's and server's socket, and the quote of the byte's packet."""
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    with client.capture("tcp") as packets:
        deliver(conn, peer, 1)
    data = packets.sent().which("with 1 byte of data", lambda packet: packet.length == 1).only()
    return conn, peer, icmp.quote(data)


def altered(quoted, family, offset, shape, value):
    """The quoted packet with another value at an offset of its TCP header."""
    changed = bytearray(quoted)
    struct.pack_into(shape, changed, (20 if family == socket.AF_INET else 40) + offset, value)
    return bytes(changed)


def sequence(quoted, family):
    return struct.unpack_from("!I", quoted, (20 if family == socket.AF_INET else 40) + SEQUENCE)[0]


def send_mtu_error(net, family, mtu, quoted):
    """The router sends the error; returns what the client counted, and its path to the server."""
    client, server, router = net.nodes("client", "server", "router")
    before = client.counters()
    icmp.send_too_big(router, client, mtu, quoted)
    counted = client.counters().since(before)
    return counted, pmtu.path(client, server.address(family))


def test_icmp_error_about_the_next_byte_is_accepted(net, family, flight):
    """The quoted sequence number may be in flight: the valid case that the other tests here vary."""
    conn, peer, quoted = flight
    counted, path = send_mtu_error(net, family, 1300, altered(quoted, family, SEQUENCE, "!I", sequence(quoted, family) + 1))

    assert (counted.get("TcpExt.OutOfWindowIcmps", 0), path.mtu) == (0, 1300)
    deliver(conn, peer, 5000)


def test_icmp_error_with_sequence_not_in_flight_is_counted_and_ignored(net, family, flight):
    """Only SND.UNA <= SEG.SEQ <= SND.NXT is accepted (tcp_v4_err(), RFC 5927 section 4.1): OutOfWindowIcmps + 1."""
    conn, peer, quoted = flight
    for acknowledged_next_or_far_away in (0, 2, 1 << 20, -(1 << 20)):
        wrong = (sequence(quoted, family) + acknowledged_next_or_far_away) % 2**32
        counted, path = send_mtu_error(net, family, 1300, altered(quoted, family, SEQUENCE, "!I", wrong))
        assert (counted.get("TcpExt.OutOfWindowIcmps", 0), path.mtu) == (1, None)

    deliver(conn, peer, 5000)


def test_icmp_error_about_an_unknown_port_is_counted_and_ignored(net, family, flight):
    """No socket, no exception: InErrors + 1."""
    conn, peer, quoted = flight
    counted, path = send_mtu_error(net, family, 1300, altered(quoted, family, SOURCE_PORT, "!H", 9))

    assert (counted.get(IN_ERRORS[family], 0), path.mtu) == (1, None)
    deliver(conn, peer, 5000)


def test_icmp_error_never_raises_the_path_mtu(net, family, flight, measure):
    """An error can only lower the path MTU (RFC 1191 section 3, RFC 8201 section 4)."""
    conn, peer, quoted = flight
    quoted = altered(quoted, family, SEQUENCE, "!I", sequence(quoted, family) + 1)
    before = tcp_info(conn).snd_mss
    for absurd in (1501, 9000, 65535):
        _counted, path = send_mtu_error(net, family, absurd, quoted)
        assert (path.mtu, tcp_info(conn).snd_mss) == (None, before)
    # The link's own MTU changes nothing; whether there is an exception for it is measured.
    _counted, path = send_mtu_error(net, family, 1500, quoted)
    measure("pmtu.exception_for_the_links_mtu", int(path.mtu == 1500), "exceptions")
    assert tcp_info(conn).snd_mss == before

    send_mtu_error(net, family, 1400, quoted)
    _counted, path = send_mtu_error(net, family, 1450, quoted)
    assert path.mtu == 1400
    deliver(conn, peer, 5000)


def test_icmp_error_can_lower_the_path_mtu_by_one_byte(net, family, flight):
    """From 1500 to 1499."""
    _conn, _peer, quoted = flight
    _counted, path = send_mtu_error(net, family, 1499, altered(quoted, family, SEQUENCE, "!I", sequence(quoted, family) + 1))

    assert path.mtu == 1499


def test_icmp_error_with_a_truncated_tcp_header_is_ignored(net, family, flight):
    """The quote needs eight bytes of the transport header (RFC 792); this one has four."""
    conn, peer, quoted = flight
    _counted, path = send_mtu_error(net, family, 1300, quoted[:(20 if family == socket.AF_INET else 40) + 4])

    assert path.mtu is None
    deliver(conn, peer, 5000)
