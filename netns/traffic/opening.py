"""Connections that are not yet synchronized, and listeners of each kind. The other end is a scripted peer."""

import socket
from collections.abc import Callable

from netns.traffic.scripted import Peer
from netns.traffic.states import Case

# include/uapi/linux/tcp.h
_TCP_DEFER_ACCEPT, _TCP_FASTOPEN = 9, 23
# A number that the host never sent.
_FOREIGN = 900_000_000


def _listener(peer: Peer, backlog: int = 4096, reuseport: bool = False, port: int = 0) -> socket.socket:
    listener = peer.host.socket(peer.family)
    if reuseport:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((peer.host.address(peer.family), port))
    listener.listen(backlog)
    listener.setblocking(False)
    return listener


def closed(peer: Peer) -> Case:
    """No socket at all."""
    listener = _listener(peer)
    line = peer.line(listener.getsockname()[1])
    listener.close()
    line.rcv = _FOREIGN
    return Case(line)


def listening(peer: Peer, **options: int) -> Case:
    """A listener with the given backlog. Options are those of listen(2)."""
    listener = _listener(peer, **options)
    line = peer.line(listener.getsockname()[1])
    line.rcv = _FOREIGN
    return Case(line, origin="LISTEN", listener=listener)


def deferring(peer: Peer) -> Case:
    """A listener with TCP_DEFER_ACCEPT (tcp(7)), for longer than any test."""
    case = listening(peer)
    case.listener.setsockopt(socket.IPPROTO_TCP, _TCP_DEFER_ACCEPT, 3600)
    return case


def fast_opening(peer: Peer) -> Case:
    """A listener with TCP_FASTOPEN (RFC 7413), of a host that asks for no cookie."""
    case = listening(peer)
    case.listener.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN, 16)
    return case


def full(peer: Peer) -> Case:
    """A listener whose accept queue is full: it holds one connection more than the backlog says."""
    return _fill(listening(peer, backlog=1))


def _fill(case: Case) -> Case:
    for _connection in range(2):
        line = case.line.peer.line(case.line.port)
        line.open()
        line.say("A")
    return case


def syn_sent(peer: Peer) -> Case:
    conn = peer.host.socket(peer.family)
    conn.setblocking(False)
    return Case(peer.connect(conn), conn, outstanding=1)


def syn_received(peer: Peer, begin: Callable[[Peer], Case] = listening) -> Case:
    """After the peer's SYN."""
    case = begin(peer)
    case.line.open()
    case.outstanding = 1
    return case


def overtaken(peer: Peer) -> Case:
    """After the peer's SYN; since then the accept queue has become full."""
    case = listening(peer, backlog=1)
    case.line.open()
    case.outstanding = 1
    return _fill(case)


def deserted(peer: Peer) -> Case:
    """After the peer's SYN; since then the listener has been closed."""
    case = syn_received(peer)
    case.listener.close()
    case.listener, case.origin = None, "CLOSED"
    return case


def migrated(peer: Peer) -> Case:
    """After the peer's SYN; since then the listener has been closed, and another one of its SO_REUSEPORT group is left."""
    case = listening(peer, reuseport=True)
    case.line.open()
    case.outstanding = 1
    heir = group_member(case)
    case.listener.close()
    case.listener = heir
    return case


def group_member(case: Case) -> socket.socket:
    """Another listener of the SO_REUSEPORT group of the case's one."""
    return _listener(case.line.peer, reuseport=True, port=case.line.port)


def crossed(peer: Peer) -> Case:
    """After both ends' SYNs (RFC 9293, 3.5, simultaneous open)."""
    case = syn_sent(peer)
    case.line.open()
    return case


def fast_opened(peer: Peer) -> Case:
    """After a SYN with data, which the application has read (RFC 7413)."""
    case = fast_opening(peer)
    case.line.say("S", bytes(10))
    case.outstanding = 1
    case.accept()
    case.conn.recv(10)
    return case
