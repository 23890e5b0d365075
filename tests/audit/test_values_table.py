"""Values that a field of a rule can and cannot have.

Source: auditctl(8), -F: of `perm` four letters, of `filetype` seven kinds; include/uapi/linux/audit.h, AUDIT_MAX_FIELD_COMPARE;
audit_field_valid() in kernel/auditfilter.c: "check for select valid field values".
"""

import socket
import stat

import pytest

from fixtures.table import Table
from netns.attempt import errno_of
from netns.netlink.auditrules import AuditRule, add, delete

GETPRIORITY = 140                           # which nobody calls meanwhile: an unknown comparison makes the kernel warn
EVERY_PERMISSION, EVERY_BIT = 15, 0xFFFFFFFF
KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
COMPARISONS = 25                            # AUDIT_MAX_FIELD_COMPARE
# By field, those that it can have and those that it cannot. AF_MAX differs between kernels; no family is beyond 255 (sa_family of 8 bits).
VALUES = {
    "loginuid_set": ((0, 1), (2, 3, 256, EVERY_BIT)),
    "perm": ((1, 2, 4, 8, EVERY_PERMISSION), (16, 17, 256, EVERY_BIT)),
    "filetype": (KINDS, (1, stat.S_IFREG + 1, 1 << 16, EVERY_BIT)),
    "compare": (tuple(range(1, COMPARISONS + 1)), (COMPARISONS + 5, 256, EVERY_BIT)),
    "saddr_fam": ((socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_VSOCK), (255, 256, EVERY_BIT)),
}
TABLE = Table("audit.values", "field", "value", "auditctl(8), -F; audit_field_valid()", {
    field: {str(value): answer for values, answer in zip(both, ("taken", "EINVAL")) for value in values} for field, both in VALUES.items()})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_field_of_a_rule_takes_the_values_that_it_can_have(audit, row, table):
    """A rule with the value is added, and deleted again."""
    for column in table:
        rule = AuditRule(((row, "=", int(column)), ("key", "=", "kdrift")), syscalls=(GETPRIORITY,))
        answer = errno_of(add, audit.control, rule)
        if not isinstance(answer, str):
            delete(audit.control, rule)
        table.saw(answer if isinstance(answer, str) else "taken")
