"""An audit record takes memory until it is read, and no longer."""

import re
from pathlib import Path

import pytest

from fixtures.machine import own_machine

COUNT, AT_A_TIME = 2000, 50
# Bytes. A record takes at least 768: a struct sk_buff, and a data area of 512.
FORGOTTEN = COUNT * 768 // 4


def unreclaimable():
    """Bytes of slab memory that the kernel cannot reclaim (SUnreclaim: proc_meminfo(5))."""
    return 1024 * int(re.search(r"^SUnreclaim: +(\d+) kB", Path("/proc/meminfo").read_text(), re.M)[1])


@pytest.fixture
def alone():
    if not own_machine():
        pytest.skip("measures the memory of the whole machine: run it with --kernel")


def test_records_that_the_daemon_has_read_take_no_memory(audit, alone, measure):
    """2000 records, fifty at a time: kauditd frees its copies."""
    daemon, sender = audit.daemon(1 << 20), audit.process()

    def deliver(count):
        for number in range(0, count, AT_A_TIME):
            sender.call("users", f"record {number}", AT_A_TIME)
            daemon.call("receive_until", f"record {number}-{AT_A_TIME - 1}")

    deliver(10 * AT_A_TIME)
    before = unreclaimable()
    deliver(COUNT)

    assert audit.status().backlog == 0
    assert measure("audit.memory_of_records_read", unreclaimable() - before, "B", tolerance=FORGOTTEN) < FORGOTTEN
