"""A test that keeps its machine busy while somebody outside interferes."""
import os
import time

BUSY = 5                                    # seconds of the guest's clock, more of the host's under emulation


def test_before():
    assert os.getpid() > 1


def test_is_busy():
    end = time.monotonic() + BUSY
    while time.monotonic() < end:
        pass


def test_after():
    assert os.getpid() > 1
