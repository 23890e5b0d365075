"""TCP connections between hosts, and what the kernel reports about them."""

import fcntl
import socket
import struct
from dataclasses import dataclass

from netns.errors import NotMet
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


def zero_window_pair(client: Host, server: Host, family: int) -> tuple[socket.socket, socket.socket]:
    """A connection with a closed window: the server does not read, the client has unsent data and nothing in flight."""
    server.pin({"net.ipv4.tcp_rmem": "4096 16384 16384"})
    conn, peer = tcp_pair(client, server, family)
    # One segment at a time: of several at once the last may find no room and be retransmitted instead of probed.
    while not _unsent(conn):
        conn.send(bytes(1000))
        eventually("unacknowledged segments of the client's connection", lambda: tcp_info(conn).unacked, 0, within=5, every=0.005)
    return conn, peer


def _unsent(conn: socket.socket) -> int:
    """Bytes not yet sent: SIOCOUTQNSD. Source: include/uapi/linux/sockios.h."""
    return struct.unpack("=i", fcntl.ioctl(conn, _SIOCOUTQNSD, bytes(4)))[0]


def deliver(conn: socket.socket, peer: socket.socket, count: int, within: float = 10) -> None:
    """Send `count` bytes and wait until the peer has received all of them; `within` is seconds.

    Raises NotMet with what arrived and the sender's state.
    """
    conn.settimeout(within)
    peer.settimeout(within)
    received, ended = 0, ""
    try:
        conn.sendall(bytes(count))
        while received < count and not ended:
            data = peer.recv(count - received)
            received += len(data)
            ended = "" if data else "before the end of the connection"
    except TimeoutError:
        ended = f"within {within:g} s"
    if ended:
        raise NotMet(f"{received} of {count} bytes arrived at {_role(peer)} {ended}; the connection of {_role(conn)}: {tcp_info(conn)}")


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

    Raises NotMet if it stays open, is closed in order, or delivers data.
    """
    conn.settimeout(within)
    try:
        received = conn.recv(1)
    except OSError as error:
        # Python's own timeout has no errno; the kernel's ETIMEDOUT does.
        if error.errno is not None:
            return error.errno
        received = None
    what = "lives" if received is None else f"delivered {received!r}"
    raise NotMet(f"within {within:g} s the connection of {_role(conn)} {what}, {tcp_info(conn)}; expected an error")


@dataclass(frozen=True)
class TcpInfo:
    """The beginning of struct tcp_info (include/uapi/linux/tcp.h): the state's name, unanswered probes, segments in flight,
    the MSS for sending in bytes of payload, and the path MTU in bytes."""

    state: str
    probes: int
    unacked: int
    snd_mss: int
    pmtu: int


def tcp_info(conn: socket.socket) -> TcpInfo:
    """The kernel's TCP_INFO of the connection now. Raises OSError."""
    fields = struct.unpack("=8B14I", conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64))
    return TcpInfo(
        state=STATES[fields[0]], probes=fields[3], unacked=fields[12], snd_mss=fields[10], pmtu=fields[21]
    )
