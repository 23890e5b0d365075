"""What AUDIT_SET accepts, and how requests are parsed (auditctl(8), netlink(7))."""

import dataclasses

import pytest

from netns.attempt import errno_of


@pytest.mark.parametrize("name", ["enabled", "failure"])
def test_invalid_enabled_or_failure_mode_is_refused(audit, name):
    """EINVAL for 3 (valid: 0, 1 and 2); the previous value stays."""
    before = getattr(audit.status(), name)

    assert errno_of(lambda: audit.control.set(**{name: 3})) == "EINVAL"
    assert getattr(audit.status(), name) == before


def test_each_request_in_one_netlink_packet_is_answered(audit):
    """Also the last one, a header with no byte behind it."""
    def settings(status):
        """Without what the kernel's own records change."""
        return dataclasses.replace(status, lost=0, backlog=0, backlog_wait_time_actual=0)

    [first, second] = audit.control.statuses(2)

    assert settings(first) == settings(second) == settings(audit.status())
