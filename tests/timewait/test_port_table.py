"""Whether connect() takes the port of an older connection: its state x tcp_tw_reuse, the time since, and where to. Source: RFC 9293,
3.10.1: an open connection is not opened again; RFC 6191; ip-sysctl.rst, tcp_tw_reuse and tcp_tw_reuse_delay."""

import socket
import struct

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import LAN
from netns import eventually, listen, tcp_info
from netns.attempt import errno_of

pytestmark = pytest.mark.topology(LAN)

FIRST_PORT = 40000
# "closed": the client has no socket any more.
STATES = ("ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1, closed", "FIN-WAIT-2", "FIN-WAIT-2, closed", "LAST-ACK, closed", "TIME-WAIT",
          "TIME-WAIT at the server", "reset")
UNHEARD = ("FIN-WAIT-1, closed", "LAST-ACK, closed")
REUSE = {"0": 0, "1": 1, "2": 2}
LATER = 1.05                                # seconds
WHEN = {"at once": 0, f"after {LATER} s": LATER}
TO = ("same address", "another port")
CELLS = {f"tcp_tw_reuse {reuse}, {when}, to the {to}": (reuse, when, to) for when in WHEN for reuse in REUSE for to in TO}
IN_USE, FREE = "EADDRNOTAVAIL", "connected"


def expected(state, reuse, when, to):
    """The client's only port is that of the older connection."""
    if to == "another port" or state in ("TIME-WAIT at the server", "reset"):
        return FREE
    if state != "TIME-WAIT" or reuse != "1":
        return IN_USE
    return FREE if when != "at once" else OneOf((IN_USE, FREE), "ip-sysctl.rst, tcp_tw_reuse_delay: 1 s; before 6.14 the next full second")


TABLE = Table("tcp.port_reuse", "state of the older connection", "setting, time, destination", "RFC 9293, 3.10.1; ip-sysctl.rst", {
    state: {column: expected(state, *cell) for column, cell in CELLS.items()} for state in STATES})


class Older:
    """A connection of the client from `port` in the given state; close() ends it."""

    def __init__(self, client, server, listener, state):
        self.client, self.server, self.state = client, server, state
        self.conn = client.socket(listener.family)
        self.conn.settimeout(10)
        self.conn.connect(listener.getsockname()[:2])
        self.peer = server.adopt(listener.accept()[0])
        getattr(self, {"ESTABLISHED": "stay", "CLOSE-WAIT": "half", "FIN-WAIT-1, closed": "unheard", "FIN-WAIT-2": "shut",
                       "FIN-WAIT-2, closed": "leave", "LAST-ACK, closed": "unheard_last", "TIME-WAIT": "first",
                       "TIME-WAIT at the server": "second", "reset": "reset"}[state])()

    def stay(self):
        """Both ends are open."""

    def half(self):
        self.peer.shutdown(socket.SHUT_WR)
        assert self.conn.recv(1) == b""

    def unheard(self):
        """The server does not receive the FIN."""
        ports = f"tcp sport {self.conn.getsockname()[1]} tcp dport {self.peer.getsockname()[1]}"
        self.server.nft("add table inet lost\nadd chain inet lost input { type filter hook input priority 0; }\n"
                        f"add rule inet lost input {ports} drop")
        self.conn.close()

    def unheard_last(self):
        self.half()
        self.unheard()

    def shut(self):
        self.conn.shutdown(socket.SHUT_WR)
        assert self.peer.recv(1) == b""
        eventually("state of the client", lambda: tcp_info(self.conn).state, "FIN_WAIT2", within=5)

    def leave(self):
        self.conn.close()
        assert self.peer.recv(1) == b""

    def first(self):
        self.leave()
        self.peer.close()

    def second(self):
        self.peer.close()
        assert self.conn.recv(1) == b""
        self.conn.close()

    def reset(self):
        self.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        self.conn.close()

    def close(self):
        if self.state in UNHEARD:
            self.server.nft("delete table inet lost")
        self.conn.close()
        self.peer.close()


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_port_of_an_older_connection_is_taken_only_if_it_may(net, family, clock, row, table):
    """While it may still receive, it keeps its addresses and ports."""
    client, server = net.nodes("client", "server")
    for host in (client, server):
        host.pin({"net.ipv4.tcp_timestamps": 1, "net.ipv4.tcp_fin_timeout": 60, "net.ipv4.tcp_syncookies": 0})
    listeners = {to: listen(server, family) for to in TO}
    for number, column in enumerate(table):
        reuse, when, to = CELLS[column]
        client.pin({"net.ipv4.ip_local_port_range": f"{FIRST_PORT + number} {FIRST_PORT + number}", "net.ipv4.tcp_tw_reuse": reuse})
        older = Older(client, server, listeners["same address"], row)
        clock.sleep(WHEN[when])
        with client.socket(family) as conn:
            conn.settimeout(10)
            error = errno_of(conn.connect, listeners[to].getsockname()[:2])
            if not isinstance(error, str):
                server.adopt(listeners[to].accept()[0]).close()
        table.saw(error if isinstance(error, str) else FREE)
        older.close()
