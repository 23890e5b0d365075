"""The accept queue of a listener."""

import select
import socket

import pytest

from fixtures.topologies import LAN
from netns import MissingFeature, at_least, build, listen, tcp_info
from netns.observe import slab

pytestmark = pytest.mark.topology(LAN)

PINNED = {"net.ipv4.tcp_syncookies": 0, "net.ipv4.tcp_abort_on_overflow": 0, "net.core.somaxconn": 4096,
          "net.ipv4.tcp_max_syn_backlog": 256}


def connect(client, listener, family):
    conn = client.socket(family)
    conn.settimeout(3)
    conn.connect(listener.getsockname()[:2])
    return conn


@pytest.mark.parametrize("backlog", [0, 1, 5])
def test_backlog_of_n_admits_n_plus_1_connections(net, family, backlog):
    """The accept queue is full when it is longer than the backlog (sk_acceptq_is_full()): even a backlog of 0 admits
    one connection ("tcp/dccp: allow a connection when sk_max_ack_backlog is zero")."""
    client, server = net.nodes("client", "server")
    server.pin(PINNED)
    listener = listen(server, family, backlog)

    conns = [connect(client, listener, family) for _ in range(backlog + 1)]

    for _conn in conns:
        listener.settimeout(3)
        server.adopt(listener.accept()[0])
    assert server.counter("TcpExt.ListenDrops") == 0


def test_connection_beyond_the_backlog_is_counted_and_completes_once_there_is_room(net, family):
    """The SYN is dropped; a retransmission connects as soon as there is room."""
    client, server = net.nodes("client", "server")
    server.pin(PINNED)
    listener = listen(server, family, backlog=1)
    conns = [connect(client, listener, family) for _ in range(2)]
    late = client.socket(family)
    late.setblocking(False)
    late.connect_ex(listener.getsockname()[:2])
    server.await_counter("TcpExt.ListenOverflows", 1, within=5)

    for _conn in conns:
        server.adopt(listener.accept()[0])

    listener.settimeout(10)
    peer = server.adopt(listener.accept()[0])
    assert peer.getpeername() == late.getsockname()
    assert tcp_info(late).state == "ESTABLISHED"


def test_connection_migrated_from_a_closed_listener_wakes_the_next_one(net, family):
    """tcp_migrate_req=1 (ip-sysctl.rst): when a listener of a SO_REUSEPORT group closes, its pending connections move
    to another one, whose epoll(7) reports it ("tcp: call sk_data_ready() after listener migration")."""
    client, server = net.nodes("client", "server")
    try:
        server.pin({"net.ipv4.tcp_migrate_req": 1})
    except FileNotFoundError as error:
        raise MissingFeature("the kernel has no tcp_migrate_req") from error
    leaving, staying = (server.socket(family) for _ in range(2))
    port = 0
    for listener in (leaving, staying):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((server.address(family), port))
        listener.listen()
        port = listener.getsockname()[1]
    poll = select.epoll()
    with poll:
        poll.register(staying, select.EPOLLIN | select.EPOLLET)
        waiting = []
        while not select.select([leaving], [], [], 0)[0]:
            waiting.append(connect(client, staying, family))
            # The group's hash may choose the other listener: accept its connections at once.
            while select.select([staying], [], [], 0)[0]:
                server.adopt(staying.accept()[0])
            poll.poll(0)
        leaving.close()

        assert poll.poll(5) == [(staying.fileno(), select.EPOLLIN)]
    peer = server.adopt(staying.accept()[0])
    waiting[-1].sendall(b"x")
    assert peer.recv(1) == b"x"


@pytest.mark.virtual_clock("counts slab objects of the whole machine, after all RCU callbacks")
def test_handshake_refused_by_a_full_accept_queue_leaks_no_route(family):
    """The last ACK finds the queue full, and the kernel drops the new connection (tcp_v4_syn_recv_sock()): 100 of them leave nothing."""
    def refuse(count):
        with build(LAN) as net:
            client, server = net.nodes("client", "server")
            server.pin(PINNED)
            for _refused in range(count):
                fill_and_refuse(client, server, family)

    assert {name: slope for name, slope in slab.slopes(slab.ROUTES[family], refuse).items() if slope > 0.5} == {}


def fill_and_refuse(client, server, family):
    """Four handshakes to a queue of three."""
    with listen(server, family, backlog=2) as listener:
        before = server.counter("TcpExt.ListenOverflows")
        # Only data completes a handshake, so four can be in progress, and the queue takes three.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
        conns = []
        for _pair in range(2):
            conns += [connect(client, listener, family) for _ in range(2)]
            for conn in conns[-2:]:
                conn.send(b"x")
        server.await_counter("TcpExt.ListenOverflows", at_least(1), within=5, since=before)
        for conn in conns:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            conn.close()
