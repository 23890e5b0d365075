"""Traffic class and flow label in the answers of a timewait socket."""

import socket
import struct

import pytest

from fixtures.topologies import LAN
from netns import eventually
from netns.traffic.closing import states

pytestmark = pytest.mark.topology(LAN)

V4 = socket.AF_INET
OPTION = {V4: (socket.IPPROTO_IP, socket.IP_TOS), socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}
IPV6_FLOWLABEL_MGR, IPV6_FLOWINFO_SEND = 32, 33
REFLECT = 4
LABEL = 0xABCDE
EXPEDITED, LOW = 0xB8, 0x20                     # DSCP EF (RFC 3246) and CS1, as TOS bytes


def marks(packet):
    return (packet.ip.tos, 0) if packet.ip.version == 4 else (packet.ip.tc, packet.ip.fl)


def reflect_labels(listener):
    """Connections reflect the flow label that they receive: struct in6_flowlabel_req, IPV6_FL_F_REFLECT (include/uapi/linux/in6.h)."""
    listener.setsockopt(socket.IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, struct.pack("=22xH8x", REFLECT))


@pytest.fixture
def marked(service):
    """A connection with a traffic class per side and, over IPv6, one flow label for both directions; its sockets and the label."""
    conn, label = service.client.socket(service.family), 0
    if service.family != V4:
        label = LABEL
        conn.setsockopt(socket.IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 1)
        service.server.pin({"net.ipv6.flowlabel_consistency": 0})
        reflect_labels(service.listener)
    conn.connect((*service.address, label, 0) if label else service.address)
    peer = service.accept()
    conn.setsockopt(*OPTION[service.family], LOW)
    peer.setsockopt(*OPTION[service.family], EXPEDITED)
    return conn, peer, label


def test_time_wait_answers_with_the_class_and_flow_label_of_the_connection(service, marked):
    """A classifier on the path must treat them like the connection's packets."""
    conn, peer, label = marked
    closed = service.close(conn, peer, "server", conn.getsockname()[:2], peer.getsockname()[:2])

    answer = closed.answers("FA", seq=-1, tsval=1000).only()

    assert (answer.flags, marks(answer)) == ("A", (EXPEDITED, label))


def test_rst_has_the_class_of_the_segment_and_the_flow_label_of_the_connection(service, marked):
    """Here the answer to late data for an orphan in FIN_WAIT2."""
    service.server.pin({"net.ipv4.tcp_fin_timeout": 5})
    conn, peer, label = marked
    peer.close()
    eventually("states of the server's connections", lambda: states(service.server), ["FIN_WAIT2"], within=5)

    with service.server.capture("tcp") as packets:
        conn.sendall(b"late")
        packets.until("a packet sent", lambda seen: seen.sent() != [], within=5)

    reset = packets.sent().only()
    assert (reset.flags, marks(reset)) == ("R", (LOW, label))
