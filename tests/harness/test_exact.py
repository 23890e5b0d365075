"""A saved state is rewritten so that it has counted no instruction, and its clock shows the same time; it outlives a machine that cannot
start for another reason."""

import os
import struct
from pathlib import Path
from unittest.mock import Mock

import pytest

from vm.exact import SECTION, SHIFT, count_from_zero
from vm.machine import LONGEST_SOCKET, Machine
from vm.qemu import VMError
from vm.state import load

OFFSET, INSTRUCTIONS = 7, (1 << 31) + 5


def written(path, *sections):
    path.write_bytes(b"before".join([b"", *sections]) + b"after")
    return path


def timer(offset, instructions):
    return SECTION + struct.pack(">qq", offset, instructions)


def test_a_saved_clock_shows_the_same_time_without_instructions(tmp_path):
    state = written(tmp_path / "devices", timer(OFFSET, INSTRUCTIONS))
    count_from_zero(state)
    assert state.read_bytes() == written(tmp_path / "expected", timer(OFFSET + (INSTRUCTIONS << SHIFT), 0)).read_bytes()


@pytest.mark.parametrize("clocks", [0, 2])
def test_what_is_no_saved_state_is_refused_as_it_is(tmp_path, clocks):
    state = written(tmp_path / "devices", *[timer(OFFSET, INSTRUCTIONS)] * clocks)
    before = state.read_bytes()
    with pytest.raises(ValueError):
        count_from_zero(state)
    assert state.read_bytes() == before


def test_a_directory_too_long_for_a_socket_is_said_and_costs_no_saved_state(tmp_path):
    """The state is shared with other sessions. Nothing may be asked of the cache."""
    directory = tmp_path / ("d" * LONGEST_SOCKET)
    directory.mkdir()
    machine = Machine(Path("bzImage"), Path("initrd"), [], directory, "virtual", "tcg")
    cache = Mock()
    with pytest.raises(VMError, match="is too long for a socket path: set TMPDIR or KDRIFT_CACHE to a shorter path"):
        load(machine, lambda: tmp_path, cache, Mock(), Mock())
    assert cache.mock_calls == []


def test_a_directory_of_these_tests_leaves_room_for_the_sockets_of_a_session_in_it(tmp_path):
    """Also with the longest number, and in a worker's directory (tests.harness.places)."""
    path = tmp_path / "99/tmp/kdrift-12345678/save-12345678/control"
    assert len(os.fsencode(path)) <= LONGEST_SOCKET
