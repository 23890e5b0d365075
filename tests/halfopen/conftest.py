"""A half-open health check: SYN, SYN-ACK, and RST instead of the ACK.

The service's application never sees it, and no port waits in TIME_WAIT. Load balancers and service meshes check
thousands of backends this way. TCP_QUICKACK off or TCP_DEFER_ACCEPT (tcp(7)) delays the ACK, and close() with SO_LINGER
0 resets the connection before it is sent.
"""

import socket
import struct
from collections.abc import Callable

import pytest

from netns import Network
from netns.traffic.closing import Service

PINNED = {
    "net.ipv4.tcp_timestamps": 1,
    "net.ipv4.tcp_tw_reuse": 0,
    "net.ipv4.tcp_rfc1337": 0,
    "net.ipv4.tcp_synack_retries": 5,
    "net.ipv4.tcp_syn_retries": 6,
    "net.ipv4.tcp_syncookies": 1,
    "net.ipv4.tcp_max_syn_backlog": 128,
    "net.ipv4.tcp_abort_on_overflow": 0,
    "net.ipv4.tcp_fastopen": 1,
    "net.ipv4.tcp_ecn": 0,
}


@pytest.fixture(autouse=True)
def pinned(net: Network) -> None:
    for host in net.hosts.values():
        host.pin(PINNED)


def quickack_off(conn: socket.socket) -> None:
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def defer_accept(conn: socket.socket) -> None:
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)


class Check:
    """A check that delays the ACK by `hold_back`."""

    def __init__(self, hold_back: Callable[[socket.socket], None]) -> None:
        self._hold_back = hold_back

    def prepare(self, conn: socket.socket) -> None:
        """Socket options before connect()."""
        self._hold_back(conn)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))

    def open(self, service: Service, port: int = 0) -> socket.socket:
        """The client's socket, connected, its ACK not yet sent. Raises OSError if the service fails the check."""
        conn = service.client.socket(service.family)
        self.prepare(conn)
        conn.settimeout(5)
        if port:
            conn.bind((service.client.address(service.family), port))
        conn.connect(service.address)
        return conn

    def run(self, service: Service, port: int = 0) -> None:
        """open(), then the RST."""
        self.open(service, port).close()


@pytest.fixture(params=(quickack_off, defer_accept), ids=("quickack-off", "defer-accept"))
def check(request: pytest.FixtureRequest) -> Check:
    """The promise holds for both."""
    return Check(request.param)
