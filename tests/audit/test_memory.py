"""A record takes memory until somebody has read it, and not longer."""

import os
import re
from pathlib import Path

import pytest

COUNT, AT_A_TIME = 2000, 50
# Bytes. A record takes 768 at the least: a struct sk_buff, and a data area of 512.
FORGOTTEN = COUNT * 768 // 4


def unreclaimable():
    """Bytes of the kernel's own objects that it cannot do without (SUnreclaim: proc_meminfo(5))."""
    return 1024 * int(re.search(r"^SUnreclaim: +(\d+) kB", Path("/proc/meminfo").read_text(), re.M)[1])


@pytest.fixture
def alone():
    if "KDRIFT_CLOCK" not in os.environ:
        pytest.skip("looks at the whole machine's memory: runs with --kernel")


def test_what_the_daemon_has_read_takes_no_memory(audit, alone, measure):
    """2000 records, fifty at a time: kauditd gives its copies back."""
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
