"""Failures at which a shell is opened."""
import socket
import time

import pytest

from fixtures.topologies import ROUTED
from netns import tcp_pair


@pytest.mark.topology(ROUTED)
def test_fails_with_a_connection(net):
    conn, peer = tcp_pair(*net.nodes("client", "server"), socket.AF_INET)
    pytest.fail(f"on purpose at {time.monotonic():.2f}")
    peer.close(), conn.close()


def test_fails_without_hosts():
    pytest.fail("on purpose, too")
