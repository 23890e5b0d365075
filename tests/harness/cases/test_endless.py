"""A test that would go on until pytest-timeout ends it, after minutes."""
import os


def test_before():
    assert os.getpid() > 1


def test_never_ends():
    while True:
        pass
