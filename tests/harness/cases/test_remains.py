"""Tests that leave something behind, each with one after it that has nothing to do with it."""

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from fixtures.topologies import LAN

USED = Path("/run/kdrift-used")             # of this machine, which begins anew when it is restored


@pytest.fixture(autouse=True)
def used():
    """What the machine was used for before."""
    before = USED.read_text().split() if USED.exists() else []
    yield before


def use(name):
    USED.parent.mkdir(exist_ok=True)
    with USED.open("a") as file:
        file.write(name + "\n")


@pytest.mark.topology(LAN)
def test_leaves_nothing(net):
    use("nothing")


@pytest.mark.topology(LAN)
def test_leaves_a_process_on_a_host(net, used):
    assert used == ["nothing"]
    use("process")
    with net["client"].entered():
        subprocess.Popen(["sleep", "1000000"])


@pytest.mark.topology(LAN)
def test_comes_after_the_process(net, used):
    assert used == []


@pytest.mark.topology(LAN)
def test_leaves_a_descriptor_with_a_process(net):
    use("descriptor")
    subprocess.Popen(["sleep", "1000000"], pass_fds=[net["server"].namespace.descriptor])


def test_comes_after_the_descriptor(used):
    assert used == []


def test_leaves_a_warning():
    use("warning")
    for line in ("<6>something", "<4>WARNING: CPU: 0 PID: 1 at net/core/sock.c:1 of nothing", "<4>something else"):
        Path("/dev/kmsg").write_text(line + "\n")


def test_comes_after_the_warning(used):
    assert used == []


@pytest.mark.timeout(5)
def test_times_out():
    use("time")
    signal.pause()


@pytest.mark.topology(LAN)
def test_fails_with_a_socket_of_its_own(net, used):
    """That is in a frame which pytest keeps; nothing is left when it has let go."""
    assert used == []
    use("socket")
    with net["client"].entered():
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    assert own.fileno() < 0


@pytest.mark.topology(LAN)
def test_comes_after_the_failed_one_in_the_same_machine(net, used):
    assert used == ["socket"]


@pytest.mark.topology(LAN)
def test_a_process_that_ends_by_itself_is_waited_for(net):
    """In a minute of the machine's clock."""
    with net["client"].entered():
        subprocess.Popen(["sleep", "60"])


def test_fails_to_give_back():
    """As the last of all: no machine is needed any more."""
    Path("/dev/kmsg").write_text("<4>BUG: of nothing\n")
