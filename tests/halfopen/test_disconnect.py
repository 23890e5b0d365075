"""A socket is disconnected by connect(2) with AF_UNSPEC and used for the next check: no state of the last one remains."""

import socket
import struct

import pytest

from fixtures.topologies import LAN
from netns import eventually
from netns.attempt import errno_of
from netns.hosts import firewall
from netns.libc import disconnect

pytestmark = pytest.mark.topology(LAN)

# include/uapi/linux/tcp.h
TCP_FASTOPEN_CONNECT = 30
COOKIE_UNAVAILABLE = 1
# Fields of struct tcp_info that do not depend on time or the speed of the network: offset and struct format.
COUNTED = {
    "state": (0, "B"), "ca_state": (1, "B"), "retransmits": (2, "B"), "probes": (3, "B"), "backoff": (4, "B"), "options": (5, "B"),
    "wscales": (6, "B"), "flags": (7, "B"), "unacked": (24, "I"), "sacked": (28, "I"), "lost": (32, "I"), "retrans": (36, "I"),
    "snd_ssthresh": (76, "I"), "snd_cwnd": (80, "I"), "reordering": (88, "I"), "total_retrans": (100, "I"), "bytes_acked": (120, "Q"),
    "bytes_received": (128, "Q"), "segs_out": (136, "I"), "segs_in": (140, "I"), "notsent_bytes": (144, "I"), "data_segs_in": (152, "I"),
    "data_segs_out": (156, "I"), "delivered": (192, "I"), "delivered_ce": (196, "I"), "bytes_sent": (200, "Q"),
    "bytes_retrans": (208, "Q"), "dsack_dups": (216, "I"), "reord_seen": (220, "I"), "rcv_ooopack": (224, "I"),
}


def counted(conn):
    data = conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 228)
    return {name: struct.unpack_from(f"={kind}", data, at)[0] for name, (at, kind) in COUNTED.items()}


def test_disconnect_resets_the_peer(service):
    """As close() with SO_LINGER 0 does; the socket itself can be used at once."""
    conn, peer = service.connect()
    disconnect(conn.fileno())
    peer.settimeout(5)

    assert errno_of(peer.recv, 1) == "ECONNRESET"
    conn.connect(service.address)
    service.accept()


def test_next_isn_is_beyond_the_window_of_the_last_connection(service):
    """No old segment fits into the new connection: its ISN is beyond all that the peer would have accepted."""
    with service.client.capture("tcp") as packets:
        conn, peer = service.connect()
        conn.sendall(bytes(1000))
        assert len(peer.recv(1000, socket.MSG_WAITALL)) == 1000
        disconnect(conn.fileno())
        conn.connect(service.address)
        service.accept()

    _first, reset, syn = packets.sent().which("with SYN or RST", lambda packet: set(packet.flags) & set("RS")).exactly(3)
    received = packets.received()
    answer, others = received[0], received[1:]
    scale = dict(answer.tcp.options)["WScale"]
    largest = max([answer.tcp.window, *(packet.tcp.window << scale for packet in others if packet.flags == "A")])
    assert largest < (syn.tcp.seq - reset.tcp.seq) % 2**32 < 2 * largest


def test_disconnected_socket_counts_like_a_fresh_one(service):
    """Its next connection has the TCP_INFO counters of a fresh socket, after data, losses and a failed Fast Open."""
    service.client.pin({"net.ipv4.tcp_no_metrics_save": 1})
    fresh, _peer = service.connect()
    used = service.client.socket(service.family)
    used.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    used.connect(service.address)
    used.sendall(b"first")
    peer = service.accept()
    peer.sendall(b"answer")
    assert used.recv(6, socket.MSG_WAITALL) == b"answer"
    with firewall.drop(service.server, service.client.address(service.family)):
        used.sendall(b"lost")
        eventually("tcpi_total_retrans of the client's connection", lambda: counted(used)["total_retrans"], 2, within=5)
    marks = counted(used)
    assert (marks["flags"] >> 1 & 3, marks["data_segs_in"]) == (COOKIE_UNAVAILABLE, 1)

    disconnect(used.fileno())
    used.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0)
    used.connect(service.address)
    service.accept()

    assert counted(used) == counted(fresh)
