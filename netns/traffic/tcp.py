"""TCP connections between hosts, and what the kernel reports about them."""

import fcntl
import socket
import struct
import sys
from collections.abc import Iterator

from netns.errors import ExpectationFailed, MissingFeature
from netns.hosts.host import Host
from netns.wait import eventually

TCP_REPAIR = 19
_SIOCOUTQNSD = 0x894B
STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
    "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV",
)


def listen(host: Host, family: int, backlog: int = 128) -> socket.socket:
    """A listener on the host's first address, on a port that the kernel chooses."""
    listener = host.socket(family)
    listener.bind((host.address(family), 0))
    listener.listen(backlog)
    return listener


def tcp_pair(client: Host, server: Host, family: int) -> tuple[socket.socket, socket.socket]:
    """An established connection: the client's socket and the server's."""
    listener = listen(server, family)
    conn = client.socket(family)
    conn.connect(listener.getsockname()[:2])
    peer = server.adopt(listener.accept()[0])
    listener.close()
    return conn, peer


def connect_unless_refused(client: Host, target: tuple[str, int], source: str = "") -> socket.socket | None:
    """A connection to an address and port, from the address `source` if given; None if it is refused. Raises OSError."""
    conn = client.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET)
    conn.settimeout(5)
    if source:
        conn.bind((source, 0))
    try:
        conn.connect(target)
    except ConnectionRefusedError:
        conn.close()
        return None
    return conn


def zero_window_pair(client: Host, server: Host, family: int) -> tuple[socket.socket, socket.socket]:
    """A connection with a closed window: the server does not read, the client has unsent data and nothing in flight."""
    server.pin({"net.ipv4.tcp_rmem": "4096 16384 16384"})
    conn, peer = tcp_pair(client, server, family)
    # One segment at a time: of several at once the last may find no room and be retransmitted instead of probed.
    while not _unsent(conn):
        conn.send(bytes(1000))
        eventually(f"tcpi_unacked of {client.role}'s connection", lambda: tcp_info(conn).unacked, 0, within=5, every=0.005)
    return conn, peer


def _unsent(conn: socket.socket) -> int:
    """Bytes not yet sent: SIOCOUTQNSD. Source: include/uapi/linux/sockios.h."""
    return struct.unpack("=i", fcntl.ioctl(conn, _SIOCOUTQNSD, bytes(4)))[0]


def deliver(conn: socket.socket, peer: socket.socket, count: int, within: float = 10) -> None:
    """Send `count` bytes and wait until the peer has received all of them; `within` is seconds.

    Raises ExpectationFailed with what arrived and the sender's state.
    """
    conn.settimeout(within)
    peer.settimeout(within)
    received, ended = 0, ""
    try:
        conn.sendall(bytes(count))
        while received < count and not ended:
            data = peer.recv(count - received)
            received += len(data)
            ended = "" if data else "before EOF"
    except TimeoutError:
        ended = f"within {within:g} s"
    if ended:
        raise ExpectationFailed(f"{_role(peer)} received {received} of {count} bytes {ended}; {_role(conn)}: {tcp_info(conn)}")


def _role(conn: socket.socket) -> str:
    return getattr(conn, "role", "?")


def keepalive(
    conn: socket.socket, idle: int | None = None, interval: int | None = None, count: int | None = None
) -> None:
    """Enable keepalive; `idle` and `interval` are seconds, and the sysctls apply where no value is given. See tcp(7)."""
    options = {socket.TCP_KEEPIDLE: idle, socket.TCP_KEEPINTVL: interval, socket.TCP_KEEPCNT: count}
    for option, value in options.items():
        if value is not None:
            conn.setsockopt(socket.IPPROTO_TCP, option, value)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def vanish(conn: socket.socket) -> None:
    """Destroy the socket without sending anything to its peer, as a power cut would.

    Needs CAP_NET_ADMIN over the host's namespace. Source: tcp_repair in net/ipv4/tcp.c, tcp_close().
    """
    conn.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    conn.close()


def wait_for_error(conn: socket.socket, within: float) -> int:
    """Wait up to `within` seconds for the connection to fail; returns the errno.

    Raises ExpectationFailed if it stays open, is closed in order, or delivers data.
    """
    conn.settimeout(within)
    try:
        received = conn.recv(1)
    except OSError as error:
        # Python's own timeout has no errno; the kernel's ETIMEDOUT does.
        if error.errno is not None:
            return error.errno
        received = None
    what = "is still open" if received is None else f"delivered {received!r}"
    raise ExpectationFailed(f"{_role(conn)}: expected an error on the connection within {within:g} s, but it {what}; {tcp_info(conn)}")


# struct tcp_info of include/uapi/linux/tcp.h: the fields of each size in bytes, in order. The word behind the last of them is
# not here: its fields have moved from one kernel to the next.
_TCP_INFO = (
    (1, "state ca_state retransmits probes backoff options wscales flags"),
    (4, "rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent last_ack_sent last_data_recv last_ack_recv pmtu "
        "rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd advmss reordering rcv_rtt rcv_space total_retrans"),
    (8, "pacing_rate max_pacing_rate bytes_acked bytes_received"),
    (4, "segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out"),
    (8, "delivery_rate busy_time rwnd_limited sndbuf_limited"),
    (4, "delivered delivered_ce"),
    (8, "bytes_sent bytes_retrans"),
    (4, "dsack_dups reord_seen rcv_ooopack snd_wnd rcv_wnd rehash"),
    (2, "total_rto total_rto_recoveries"),
    (4, "total_rto_time received_ce delivered_e1_bytes delivered_e0_bytes delivered_ce_bytes received_e1_bytes received_e0_bytes "
        "received_ce_bytes"),
)
# Bit fields on little-endian machines: the byte, the lowest bit and the number of bits.
_BITS = {
    "snd_wscale": ("wscales", 0, 4), "rcv_wscale": ("wscales", 4, 4),
    "delivery_rate_app_limited": ("flags", 0, 1), "fastopen_client_fail": ("flags", 1, 2),
}
_LONGEST = 1024


def _places() -> Iterator[tuple[str, tuple[int, int]]]:
    at = 0
    for size, names in _TCP_INFO:
        for name in names.split():
            yield name, (at, size)
            at += size


_PLACES = dict(_places())


class TcpInfo:
    """struct tcp_info (tcp(7), include/uapi/linux/tcp.h). Its fields are attributes without the prefix tcpi_: `snd_mss` and `advmss`
    in bytes of payload, `pmtu` in bytes, `rto`, `rtt` and `busy_time` in microseconds, `unacked` in segments, `probes` unanswered ones.
    `state` is the state's name.

    A field that this kernel does not have raises MissingFeature.
    """

    def __init__(self, data: bytes) -> None:
        """The structure as the kernel returned it, which is shorter on older kernels."""
        self.data = data

    @property
    def state(self) -> str:
        return STATES[self.data[0]]

    def __getattr__(self, name: str) -> int:
        if name in _BITS:
            byte, low, bits = _BITS[name]
            return getattr(self, byte) >> low & (1 << bits) - 1
        if name not in _PLACES:
            raise AttributeError(f"struct tcp_info has no field {name}")
        at, size = _PLACES[name]
        if at + size > len(self.data):
            raise MissingFeature(f"the kernel's struct tcp_info of {len(self.data)} bytes has no tcpi_{name}")
        return int.from_bytes(self.data[at:at + size], sys.byteorder)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("state", "probes", "unacked", "snd_mss", "pmtu"))
        return f"TcpInfo({shown})"


def tcp_info(conn: socket.socket) -> TcpInfo:
    """The kernel's TCP_INFO of the connection now. Raises OSError."""
    return TcpInfo(conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LONGEST))
