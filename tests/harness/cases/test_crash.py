"""A test that crashes one of the kernels, between two that pass."""
import os
from pathlib import Path

CRASHING = "6.12."


def test_before():
    assert os.getpid() > 1


def test_crashes_the_kernel():
    if os.uname().release.startswith(CRASHING):
        Path("/proc/sysrq-trigger").write_text("c")


def test_after():
    assert os.getpid() > 1
