"""A kernel that would leak, and one that warns of itself; the test itself is content."""

import socket
from pathlib import Path

from netns import Host

TIMES = 20


def test_keeps_its_sockets(given_back):
    with Host("keeper") as host:
        given_back(lambda: [host.socket(socket.AF_INET) for _ in range(TIMES)], TIMES)


def test_closes_its_sockets(given_back):
    with Host("closer") as host:
        given_back(lambda: [host.socket(socket.AF_INET).close() for _ in range(TIMES)], TIMES)


def test_is_there_when_the_kernel_warns():
    Path("/dev/kmsg").write_text("<4>WARNING: CPU: 0 PID: 1 at net/core/sock.c:1 of nothing\n")


def test_is_there_when_the_kernel_says_something():
    Path("/dev/kmsg").write_text("<4>something\n")
