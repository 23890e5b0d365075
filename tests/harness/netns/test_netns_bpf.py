"""Programs for the kernel without a compiler: what they compute, what the verifier refuses."""

import os

import pytest

from netns import MissingFeature
from netns.observe import bpf


@pytest.fixture(autouse=True)
def allowed():
    """Skips where bpf(2) is not for this user, as in a user namespace."""
    try:
        os.close(bpf.load(bpf.RAW_TRACEPOINT, bpf.move(bpf.R0, 0) + bpf.RETURN))
    except MissingFeature as missing:
        pytest.skip(str(missing))


def test_a_program_returns_what_it_computes():
    program = bpf.load(bpf.RAW_TRACEPOINT, bpf.move64(bpf.R0, 0x1_0000_002A) + bpf.RETURN)
    assert bpf.run(program) == 42
    assert bpf.run(bpf.load(bpf.RAW_TRACEPOINT, bpf.move(bpf.R0, -22) + bpf.RETURN)) == -22


def test_a_counter_counts_runs():
    counter = bpf.counter()
    program = bpf.load(bpf.RAW_TRACEPOINT, bpf.count_in(counter))
    for _ in range(3):
        bpf.run(program)
    assert bpf.counted(counter) == 3


def test_what_the_verifier_refuses_comes_with_its_words():
    with pytest.raises(OSError, match="R0 !read_ok"):
        bpf.load(bpf.RAW_TRACEPOINT, bpf.RETURN)


def test_an_attached_program_sees_events_until_it_is_closed():
    counter = bpf.counter()
    attached = bpf.attach(bpf.load(bpf.RAW_TRACEPOINT, bpf.count_in(counter)), "sys_enter")
    os.getppid()
    os.close(attached)
    seen = bpf.counted(counter)
    os.getppid()
    assert bpf.counted(counter) == seen > 0
