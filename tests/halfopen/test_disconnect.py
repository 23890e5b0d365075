"""A socket is disconnected by connect(2) with AF_UNSPEC and used for the next check: no state of the last one remains."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import eventually, tcp_info
from netns.attempt import errno_of
from netns.hosts import firewall
from netns.libc import disconnect

pytestmark = pytest.mark.topology(LAN)

# include/uapi/linux/tcp.h
TCP_FASTOPEN_CONNECT = 30
COOKIE_UNAVAILABLE = 1
# Fields of struct tcp_info that do not depend on time or the speed of the network.
COUNTED = (
    "state", "ca_state", "retransmits", "probes", "backoff", "options", "wscales", "flags", "unacked", "sacked", "lost", "retrans",
    "snd_ssthresh", "snd_cwnd", "reordering", "total_retrans", "bytes_acked", "bytes_received", "segs_out", "segs_in", "notsent_bytes",
    "data_segs_in", "data_segs_out", "delivered", "delivered_ce", "bytes_sent", "bytes_retrans", "dsack_dups", "reord_seen", "rcv_ooopack",
)


def counted(conn):
    info = tcp_info(conn)
    return {name: getattr(info, name) for name in COUNTED}


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
    scale = answer.wscale
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
    assert (tcp_info(used).fastopen_client_fail, marks["data_segs_in"]) == (COOKIE_UNAVAILABLE, 1)

    disconnect(used.fileno())
    used.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0)
    used.connect(service.address)
    service.accept()

    assert counted(used) == counted(fresh)
