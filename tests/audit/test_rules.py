"""Rules for system calls, and the content of their records."""

import ctypes
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

from netns.attempt import refused
from netns.hosts.actor import Actor
from netns.named import NamedList

AUDIT_SYSCALL, AUDIT_CAPSET = 1300, 1322
_CAPSET, _EXECVE = 126, 59                  # on x86-64
_CAPABILITY_VERSION_3 = 0x20080522
CAP_AUDIT_WRITE = 1 << 29


class Capable:
    """A process that sets its capabilities by capset(2)."""

    def __init__(self):
        self._libc = ctypes.CDLL(None, use_errno=True)

    def set_inheritable(self, capabilities):
        """Keep the effective and permitted capabilities below 32, and make only these inheritable."""
        header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
        data = ctypes.create_string_buffer(24)
        assert self._libc.capget(header, data) == 0
        effective, permitted, _inheritable, *high = struct.unpack("=6I", data.raw)
        wanted = struct.pack("=6I", effective, permitted, capabilities, high[0], high[1], 0)
        assert self._libc.capset(header, wanted) == 0
        return effective


@pytest.mark.skipif(struct.calcsize("P") != 8, reason="needs the x86-64 number of capset(2)")
def test_capset_record_shows_the_inheritable_set(audit):
    """cap_pi is the inheritable set; kernels without "audit: fix incorrect inheritable capability in CAPSET records"
    have the effective set there."""
    daemon = audit.daemon()
    with Actor(Capable) as process:
        audit.control.add_rule(_CAPSET, process.pid)
        try:
            effective = process.call("set_inheritable", CAP_AUDIT_WRITE)
        finally:
            audit.control.delete_rule(_CAPSET, process.pid)

    assert effective != CAP_AUDIT_WRITE
    audit.process().call("user", "done")
    records = daemon.call("receive_until", "done")
    record = NamedList("CAPSET records received by the audit daemon", (each for each in records if each.kind == AUDIT_CAPSET)).only()
    fields = dict(field.split("=") for field in record.text.split())
    assert int(fields["cap_pi"], 16) == CAP_AUDIT_WRITE, record.text


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("fate", ["unchanged", "removed", "renamed", "replaced"])
def test_exe_rule_can_be_deleted_whatever_happened_to_its_file(audit, directory, fate):
    """The same path deletes it; a second attempt gets ENOENT. Kernels without "audit: fix removal of dangling
    executable rules" do not find the file any more, and keep the rule for ever."""
    program = directory / "program"
    program.touch()
    audit.control.add_program_rule(_CAPSET, program)

    if fate in ("removed", "replaced"):
        program.unlink()
    if fate == "renamed":
        program.rename(directory / "other")
    if fate == "replaced":
        program.touch()
    audit.control.delete_program_rule(_CAPSET, program)

    with refused("ENOENT", "deleting the rule a second time"):
        audit.control.delete_program_rule(_CAPSET, program)


@pytest.mark.skipif(struct.calcsize("P") != 8, reason="needs the x86-64 number of execve(2)")
def test_exe_rule_can_be_added_before_its_file_exists(audit, directory):
    """Once the file exists it holds: its execve(2) is recorded. Then it can be deleted like any other, and nothing more is recorded."""
    program, daemon = directory / "program", audit.daemon()
    audit.control.add_program_rule(_EXECVE, program)

    shutil.copy("/bin/sh", program)
    subprocess.run([program, "-c", ":"], check=True)
    audit.process().call("user", "run")
    held = daemon.call("receive_until", "run")
    audit.control.delete_program_rule(_EXECVE, program)
    subprocess.run([program, "-c", ":"], check=True)
    audit.process().call("user", "run again")

    assert len(executed(held)) == 1
    assert executed(daemon.call("receive_until", "run again")) == []


def executed(records):
    """Of execve(2): a change of the rules is recorded with its own system call."""
    return [record for record in records if record.kind == AUDIT_SYSCALL and f" syscall={_EXECVE} " in record.text]
