"""How long a machine may be silent does not depend on what else the host does."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.harness.sessions import eventually
from vm.patience import Patience, processor_time, waited

BUSY = "while True: pass"
LONGEST = 60                                # seconds of wall time for a stand-in to get its share of a busy host


@pytest.fixture
def start():
    """Starts Python programs on one processor of this machine, which they share."""
    running = []

    def begin(program):
        one = min(os.sched_getaffinity(0))
        running.append(subprocess.Popen([sys.executable, "-c", program], preexec_fn=lambda: os.sched_setaffinity(0, {one})))
        return running[-1].pid

    yield begin
    for process in running:
        process.kill()
        process.wait()


def test_one_that_computes_is_given_its_seconds_on_a_busy_host(start):
    """Four share a processor, so that a second of it takes four of the wall's."""
    pid = [start(BUSY) for _ in range(4)][0]
    eventually(lambda: processor_time(pid) > 0.2, LONGEST, lambda: "it does not run")
    patience, computed, began = Patience(pid, 1), processor_time(pid), time.monotonic()

    eventually(patience.is_over, LONGEST, lambda: "it is never over")

    assert processor_time(pid) - computed + 0.3 >= 1                # the waiting is counted a little later than the computing
    assert time.monotonic() - began > 2
    assert waited(pid) > 1


@pytest.mark.parametrize("state", ["asleep", "stopped"])
def test_one_that_does_nothing_is_found(start, state):
    """A guest without any timer, and a QEMU that somebody has stopped, use no processor's time at all."""
    pid = start("import time; time.sleep(600)")
    if state == "stopped":
        os.kill(pid, signal.SIGSTOP)
    eventually(Patience(pid, 0.5).is_over, LONGEST, lambda: "it is never over")
    assert processor_time(pid) < 0.5


def test_sleep_may_be_given_more_time_than_work(start):
    asleep = start("import time; time.sleep(600)")
    began = time.monotonic()
    eventually(Patience(asleep, 0.2, asleep=1).is_over, LONGEST, lambda: "it is never over")
    assert time.monotonic() - began >= 1


def test_a_word_renews_it(start):
    pid = start("import time; time.sleep(600)")
    patience = Patience(pid, 0.3)
    eventually(patience.is_over, LONGEST, lambda: "it is never over")
    patience.renew()
    assert not patience.is_over()
