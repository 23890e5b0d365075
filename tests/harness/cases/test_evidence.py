"""A failure whose packets a firewall dropped, and one during which the kernel logged a line."""
import socket
from pathlib import Path

import pytest

from fixtures.topologies import ROUTED
from netns import eventually, tcp_pair
from netns.hosts import firewall


@pytest.mark.topology(ROUTED)
def test_fails_with_a_line_in_the_log(net):
    tcp_pair(*net.nodes("client", "server"), socket.AF_INET)
    Path("/dev/kmsg").write_text("<6>a line of the kernel's log")
    pytest.fail("on purpose")


@pytest.mark.topology(ROUTED)
def test_fails_for_a_firewall(net):
    client, server = net.nodes("client", "server")
    conn, _peer = tcp_pair(client, server, socket.AF_INET)
    with firewall.drop(server, client.address(socket.AF_INET), "nft") as dropped:
        conn.sendall(b"hello")
        eventually("packets that the firewall dropped", dropped.packets, 2, within=5)
    pytest.fail("on purpose")


@pytest.mark.topology(ROUTED)
def test_fails_after_a_drop(net):
    tcp_pair(*net.nodes("client", "server"), socket.AF_INET)
    pytest.fail("on purpose")
