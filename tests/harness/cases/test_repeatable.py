"""What could be chance: when a test begins, random numbers, ports, sequence numbers, packets and their times."""
import os
import socket
import time

import pytest

from fixtures.topologies import ROUTED
from netns import tcp_pair


def test_time_and_random_numbers(measure) -> None:
    measure("clock", time.monotonic_ns(), "ns")
    measure("random", int.from_bytes(os.urandom(6), "big"), "")


@pytest.mark.topology(ROUTED)
@pytest.mark.virtual_clock("lets an hour pass")
def test_connection(net, measure) -> None:
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, socket.AF_INET)
    measure("port", conn.getsockname()[1], "")
    for _ in range(3):
        conn.sendall(b"hello")
        assert peer.recv(5) == b"hello"
        time.sleep(1200)
    measure("clock", time.monotonic_ns(), "ns")
