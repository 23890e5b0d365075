"""What AUDIT_SET takes, and how requests are read (auditctl(8), netlink(7))."""

import dataclasses

import pytest

from netns.attempt import errno_of


@pytest.mark.parametrize("name", ["enabled", "failure"])
def test_a_mode_that_there_is_not_is_refused(audit, name):
    """0, 1 and 2 there are, EINVAL for 3; what was set before stays."""
    before = getattr(audit.status(), name)

    assert errno_of(lambda: audit.control.set(**{name: 3})) == "EINVAL"
    assert getattr(audit.status(), name) == before


def test_each_request_of_a_packet_is_answered(audit):
    """Also the last one, which is a header and nothing else, with no byte behind it."""
    def settings(status):
        """Without what the kernel's own records move."""
        return dataclasses.replace(status, lost=0, backlog=0, backlog_wait_time_actual=0)

    [first, second] = audit.control.statuses(2)

    assert settings(first) == settings(second) == settings(audit.status())
