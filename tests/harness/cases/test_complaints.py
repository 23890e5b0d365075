"""A kernel that warns of itself; the test is content."""

from pathlib import Path


def test_is_there_when_the_kernel_warns():
    Path("/dev/kmsg").write_text("<4>WARNING: CPU: 0 PID: 1 at net/core/sock.c:1 of nothing\n")


def test_is_there_when_the_kernel_says_something():
    Path("/dev/kmsg").write_text("<4>something\n")
