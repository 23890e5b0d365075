"""What is left of the tests before."""

import pytest

from netns.kmsg import KernelLog


@pytest.mark.last("it is about the tests before")
@pytest.mark.virtual_clock("the kernel complains after 10 s, and every 10 s")
def test_nothing_holds_on_to_a_host_that_is_gone(clock):
    """Its interfaces are freed. Of one to which a reference was leaked, by a route or a packet that nobody lets go, the
    kernel says that it waits for it (netdev_wait_allrefs_any()), and no other namespace can go meanwhile."""
    with KernelLog() as log:
        clock.sleep(12)
        lines = [record.text for record in log.records()]

    assert [line for line in lines if "waiting for" in line] == []
