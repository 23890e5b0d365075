"""The CAPSET record shows each set of capabilities as the process has set it.

Source: the comments of AUDIT_CAPSET (include/uapi/linux/audit.h, "Record showing argument to sys_capset") and of __audit_log_capset():
pi, pp, pe and pa are the inheritable, permitted, effective and ambient set.
"""

import ctypes
import struct

import pytest

from fixtures.table import Table
from netns.named import NamedList
from netns.netlink.auditrules import AuditRule, add, delete, fields

CAPSET, RECORD = 126, 1322
VERSION_3 = 0x20080522
PR_CAP_AMBIENT, RAISE = 47, 2
SETPCAP, NET_ADMIN, NET_RAW, AUDIT_READ, PERFMON = (1 << number for number in (8, 12, 13, 37, 38))
SETS = {"inheritable": "cap_pi", "permitted": "cap_pp", "effective": "cap_pe", "ambient": "cap_pa"}
# Permitted, effective, inheritable and ambient; ambient ones must be permitted and inheritable (capabilities(7)).
CASES = {
    "each set another": (SETPCAP | NET_ADMIN | NET_RAW, SETPCAP | NET_ADMIN, NET_ADMIN | NET_RAW, NET_RAW),
    "none is effective": (SETPCAP | NET_ADMIN, 0, NET_ADMIN | NET_RAW, NET_ADMIN),
    "none is inheritable": (SETPCAP | NET_ADMIN | NET_RAW, SETPCAP, 0, 0),
    "only inheritable ones": (0, 0, NET_RAW, 0),
    "of the higher half": (AUDIT_READ | PERFMON | SETPCAP, AUDIT_READ, PERFMON, PERFMON),
    "of both halves": (SETPCAP | AUDIT_READ, SETPCAP, SETPCAP | PERFMON, SETPCAP),
    "as they were, all": (None, None, 0, 0),
}

CAPSETS = Table("audit.capset", "capabilities", "field", "include/uapi/linux/audit.h, AUDIT_CAPSET; capabilities(7)",
                {case: {field: f"the {name} ones" for name, field in SETS.items()} for case in CASES})


class CapsetProcess:
    """A process that sets its capabilities by capset(2)."""

    def __init__(self):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._header = struct.pack("=Ii", VERSION_3, 0)

    def set(self, permitted, effective, inheritable, ambient):
        """The four sets by their names, as capset(2) was given them; None for those that are there. The ambient ones are raised before,
        which needs them in the inheritable set."""
        present = self._get()
        wanted = {"permitted": present["permitted"] if permitted is None else permitted,
                  "effective": present["effective"] if effective is None else effective, "inheritable": inheritable}
        self._set({**present, "inheritable": inheritable})
        for number in range(64):
            if ambient >> number & 1:
                assert self._libc.prctl(PR_CAP_AMBIENT, RAISE, number, 0, 0) == 0
        self._set(wanted)
        return {**wanted, "ambient": ambient}

    def _get(self):
        data = ctypes.create_string_buffer(24)
        assert self._libc.capget(self._header, data) == 0
        words = struct.unpack("=6I", data.raw)
        return {name: words[at] | words[at + 3] << 32 for at, name in enumerate(("effective", "permitted", "inheritable"))}

    def _set(self, sets):
        values = [sets[name] for name in ("effective", "permitted", "inheritable")]
        data = struct.pack("=6I", *(value & 0xFFFFFFFF for value in values), *(value >> 32 for value in values))
        assert self._libc.capset(self._header, data) == 0


@pytest.mark.table(CAPSETS)
@pytest.mark.parametrize("row", CAPSETS.rows)
def test_capset_record_shows_each_set_of_capabilities(audit, row, table):
    """The last call sets all at once. Kernels without "audit: fix incorrect inheritable capability in CAPSET records" show the effective
    ones for the inheritable ones."""
    daemon, process = audit.daemon(1 << 20), audit.actor(CapsetProcess)
    rule = AuditRule((("pid", "=", process.pid),), syscalls=(CAPSET,))
    add(audit.control, rule)
    try:
        wanted = process.call("set", *CASES[row])
    finally:
        delete(audit.control, rule)
    audit.control.user("done")
    records = [each for each in daemon.call("receive_until", "done") if each.kind == RECORD]
    found = fields(NamedList("CAPSET records received by the audit daemon", records).exactly(2)[-1].text)

    names = {field: name for name, field in SETS.items()}
    for column in table:
        value = int(found[column], 16)
        same = [name for name in wanted if wanted[name] == value]
        name = names[column] if names[column] in same else same[0] if same else "nobody's"
        table.saw(f"the {name} ones")
