"""Cases for ./kdrift export and --bug-report: each ends in its own way."""

import errno
import socket

import pytest

from fixtures.topologies import LAN
from netns import MissingFeature, tcp_pair

pytestmark = pytest.mark.topology(LAN)


@pytest.fixture
def conn(net, family):
    conn, _peer = tcp_pair(*net.nodes("client", "server"), family)
    yield conn
    conn.close()


@pytest.mark.parametrize("size, times", [(1, 1), pytest.param(5, 2, id="more")])
def test_promise_holds(conn, measure, size, times):
    """Data is taken."""
    sent = sum(conn.send(bytes(size)) for _ in range(times))
    assert measure("case.sent", sent, "bytes") == size * times


def test_promise_is_broken(conn):
    """One byte is two bytes."""
    sent = conn.send(b"x")
    assert sent == 2


def test_kernel_refuses(net, family):
    """There is a listener."""
    net["client"].socket(family).connect((net["server"].address(family), 9))


def test_time_is_over(net, family):
    """A socket's timeout is a TimeoutError with every version of Python."""
    silent = net["server"].socket(family, socket.SOCK_DGRAM)
    silent.bind((net["server"].address(family), 0))
    silent.settimeout(0.1)
    with pytest.raises(TimeoutError):
        silent.recv(1)


def test_nothing_comes(conn):
    conn.settimeout(0.1)
    conn.recv(1)


def test_machine_lacks_something(net):
    raise MissingFeature("the kernel has no flux capacitor")


def test_case_has_a_mistake(net):
    net.nodes("client", "server") + 1


def test_machine_may_not(net):
    raise OSError(errno.EPERM, "not permitted")


def test_uses_what_only_pytest_has(capsys):
    pass
