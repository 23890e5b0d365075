"""Tests that pass, fail and skip on purpose."""
import socket

import pytest


def test_passes(measure):
    measure("case.number", 42.5, "s", tolerance=0.25)


def test_has_a_temporary_directory(tmp_path):
    (tmp_path / "file").write_text("written")


def test_fails():
    expected, seen = 1, 2
    assert seen == expected


def test_fails_in_setup(request):
    request.getfixturevalue("no_such_fixture")


def test_skips():
    pytest.skip("no such thing here")


@pytest.mark.parametrize("text", ["a b", "<&\"'>", "[x]::y/z", "ü√", "\x1b[31m", ""])
def test_odd_parameter(text):
    assert isinstance(text, str)


@pytest.mark.timeout(30)
def test_waits_for_ever():
    here, _there = socket.socketpair()
    here.recv(1)
