"""What could be chance: when a test begins, random numbers, ports, sequence numbers, packets and their times."""
import errno
import os
import socket
import time

import pytest

from fixtures.topologies import ROUTED
from netns import stopwatch, tcp_pair


def test_time_and_random_numbers(measure) -> None:
    measure("clock", time.monotonic_ns(), "ns")
    measure("random", int.from_bytes(os.urandom(6), "big"), "")


@pytest.mark.topology(ROUTED)
def test_first_connection_takes_no_longer_than_the_next(net) -> None:
    client, server = net.nodes("client", "server")
    times = []
    for _ in range(2):
        with client.socket(socket.AF_INET) as conn, stopwatch() as took:
            conn.setblocking(False)
            assert conn.connect_ex((server.address(socket.AF_INET), 9)) == errno.EINPROGRESS
        times.append(took.seconds)
    assert times[0] < times[1] + 0.001


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
