"""Connections to one service, their orderly close, and segments that arrive after it: TIME_WAIT (RFC 9293, 3.6.1)."""

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from netns.hosts.host import Host
from netns.named import NamedList, name_of
from netns.observe import procnet
from netns.packets import segment
from netns.packets.packet import Packet
from netns.traffic.tcp import STATES, TCP_REPAIR

# include/uapi/linux/tcp.h
_TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, _SEND_QUEUE = 20, 21, 2


@dataclass(frozen=True)
class Closed:
    """A closed connection. The `holder` closed it first and has it in TIME_WAIT, at the `local` address and port; `snd_nxt`
    and `rcv_nxt` are its sequence numbers, `ts_recent` is the last TSval of the `peer`, None without timestamps."""

    holder: Host
    peer: Host
    local: segment.Endpoint
    remote: segment.Endpoint
    snd_nxt: int
    rcv_nxt: int
    ts_recent: int | None

    def answers(self, flags: str, seq: int, tsval: int | None = None, payload: bytes = b"") -> NamedList:
        """The holder's answers to a segment of the peer whose sequence number and TSval differ by `seq` and `tsval` from the next ones."""
        with self.holder.capture("tcp") as packets:
            self.inject(flags, seq, tsval, payload)
            fence(self.peer, self.holder, self.local[0])
        return packets.sent()

    def inject(self, flags: str, seq: int, tsval: int | None = None, payload: bytes = b"") -> None:
        """Send such a segment from the peer's host, like a delayed duplicate or a forgery."""
        timestamps = None if tsval is None else ((self.ts_recent or 0) + tsval, 0)
        ack = self.snd_nxt if "A" in flags else 0
        segment.send(self.peer, self.remote, self.local, flags, self.rcv_nxt + seq, ack, timestamps, payload)


def fence(sender: Host, receiver: Host, address: str) -> None:
    """Wait until the receiver has processed all that the sender has sent: a datagram follows it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with receiver.socket(family, socket.SOCK_DGRAM) as inbox, sender.socket(family, socket.SOCK_DGRAM) as outbox:
        inbox.bind((address, 0))
        inbox.settimeout(10)
        outbox.sendto(b"x", inbox.getsockname()[:2])
        inbox.recv(1)


class Service:
    """A listener on the server, and the client that connects to it. `address` includes the port."""

    def __init__(self, client: Host, server: Host, listener: socket.socket) -> None:
        self.client, self.server, self.listener = client, server, listener
        self.family = listener.family
        self.address: segment.Endpoint = listener.getsockname()[:2]

    def connect(self, port: int = 0, isn: int | None = None, within: float = 10) -> tuple[socket.socket, socket.socket]:
        """Connect from the client's `port`, 0 for any, within `within` seconds; returns both sockets. Raises OSError.

        `isn` sets the sequence number of the SYN, which needs CAP_NET_ADMIN.
        """
        conn = self.client.socket(self.family)
        if isn is not None:
            _begin_with(conn, isn)
        if port:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            conn.bind((self.client.address(self.family), port))
        conn.settimeout(within)
        conn.connect(self.address)
        return conn, self.accept()

    def accept(self) -> socket.socket:
        self.listener.settimeout(10)
        return self.server.adopt(self.listener.accept()[0])

    def closed(self, first: str = "server", port: int = 0, data: bytes = b"") -> Closed:
        """A connection that carried `data` from the client and was closed by both sides, `first` first."""
        conn, peer = self.connect(port)
        names = conn.getsockname()[:2], peer.getsockname()[:2]
        conn.sendall(data)
        assert not data or peer.recv(len(data), socket.MSG_WAITALL) == data
        return self.close(conn, peer, first, *names)

    def close(
        self, conn: socket.socket, peer: socket.socket, first: str, client_at: segment.Endpoint,
        server_at: segment.Endpoint
    ) -> Closed:
        ends = [(self.client, conn, client_at), (self.server, peer, server_at)]
        (holder, early, local), (other, late, remote) = ends if first == "client" else reversed(ends)
        with holder.capture("tcp") as packets:
            # Not close() yet: an orphan in FIN_WAIT2 would already count as TIME_WAIT.
            early.shutdown(socket.SHUT_WR)
            assert late.recv(1) == b""
            late.close()
            packets.until("FIN, FIN and the last ACK", closed_by_both, within=10)
            early.close()
        seen = packets.packets()
        last_fin, last_ack = seen[-2], seen[-1]
        fence(holder, other, remote[0])
        timestamps = last_fin.timestamps
        return Closed(holder, other, local, remote, last_ack.seq, last_ack.ack, timestamps and timestamps[0])


def _begin_with(conn: socket.socket, isn: int) -> None:
    """Set the initial sequence number with TCP_REPAIR. Source: tcp_repair in net/ipv4/tcp.c."""
    repair(conn, isn)
    conn.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)


def repair(conn: socket.socket, seq: int) -> None:
    """Put the socket into repair mode, with `seq` next to send: connect() then sends nothing. Needs CAP_NET_ADMIN."""
    conn.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    conn.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, _SEND_QUEUE)
    conn.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("=I", seq % 2**32))


def closed_by_both(packets) -> bool:
    """Whether a host has sent a FIN, received one, and acknowledged it."""
    flags = [(packet.flags, packet.sent) for packet in packets]
    return ("FA", True) in flags and flags[-2:] == [("FA", False), ("A", True)]


def syn_acks(packets: Iterable[Packet]) -> NamedList:
    """The SYN-ACKs among the packets."""
    return NamedList(f"SYN-ACKs among {name_of(packets)}", (packet for packet in packets if packet.flags == "SA"))


def time_waits(host: Host) -> int:
    """Connections in TIME_WAIT, and those in FIN_WAIT2 that the kernel keeps as timewait sockets."""
    return host.counter("sockstat.TCP.tw")


def states(host: Host) -> list[str]:
    """The state of each TCP socket except listeners, by its name in RFC 9293: proc_net(5)."""
    with host.entered():
        names = [STATES[int(columns[3], 16)] for table in ("tcp", "tcp6") for columns in procnet.rows(table)]
    return [name for name in names if name != "LISTEN"]
