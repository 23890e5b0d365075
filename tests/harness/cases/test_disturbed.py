"""Tests with and without assertions that can fail, for fixtures.disturbances."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import stopwatch

pytestmark = pytest.mark.topology(LAN)


def test_looks_at_nothing(net):
    client = net["client"]
    conn = client.socket(socket.AF_INET)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 17)
    client.counter("Tcp.InSegs")
    assert len(client.sysctl("net.ipv4.ip_forward")) >= 0


def test_has_an_upper_bound(net):
    with stopwatch() as took:
        net["client"].counter("Tcp.InSegs")
    assert took.seconds < 5


def test_sets_an_option(net):
    conn = net["client"].socket(socket.AF_INET)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 17)
    assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 17


def test_delivers(net):
    """No answer of getsockname() counts."""
    client, server = net.nodes("client", "server")
    inbox, outbox = (host.socket(socket.AF_INET, socket.SOCK_DGRAM) for host in (server, client))
    inbox.bind((server.address(socket.AF_INET), 4000))
    inbox.settimeout(0.5)
    outbox.connect((server.address(socket.AF_INET), 4000))
    outbox.getsockname()
    outbox.send(b"hello")
    assert inbox.recv(5) == b"hello"
