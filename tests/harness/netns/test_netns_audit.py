"""Audit's structs and texts; the audit system itself is not touched here."""

import pytest

from netns.netlink.audit import AuditSocket, Record, Status, netlink_row


def test_status_mask_and_fields_are_where_the_kernel_has_them():
    """struct audit_status: mask first, pid the fourth, backlog_wait_time the tenth of eleven 32-bit numbers."""
    payload = AuditSocket.set_payload({"pid": 7, "backlog_wait_time": 9})
    assert Status(*memoryview(payload).cast("I")) == Status(0x24, 0, 0, 7, 0, 0, 0, 0, 0, 9, 0)


def test_message_of_a_record_is_what_the_program_has_logged():
    assert Record(1123, 1, "pid=1 uid=0 msg='hello: it's me'").message == "hello: it's me"
    assert Record(1305, 1, "op=set audit_pid=133").message is None


def test_unknown_netlink_socket_is_an_error():
    with pytest.raises(LookupError, match="inode 0"):
        netlink_row(0)


def test_on_the_running_kernel_audit_is_refused_unless_asked_for(pytester):
    pytester.makepyfile("def test_it(audit): pass")
    result = pytester.runpytest("-p", "fixtures.options", "-p", "fixtures.audit", "-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*--audit-on-host*"])


pytest_plugins = ["pytester"]
