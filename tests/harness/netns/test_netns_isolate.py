"""Private namespaces for the whole run, with and without leave."""

import subprocess
import sys

import pytest

ENTER = """
import os, sys, threading
from netns import libc, isolate
{before}
try:
    isolate.enter()
except isolate.IsolationError as error:
    sys.exit(f"refused: {{error}}")
print(os.geteuid(), os.listdir("/run"), os.listdir("/sys/class/net") and open("/proc/net/dev").read().count(":"))
"""

# Whoever runs this test, the child is user 1000 of a user namespace of its own.
ORDINARY_USER = """
uid, gid = os.geteuid(), os.getegid()
libc.unshare(libc.CLONE_NEWUSER)
for file, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
    with open(f"/proc/self/{file}", "w") as mapping:
        mapping.write(text)
"""


def enter(before: str = "") -> subprocess.CompletedProcess:
    program = ENTER.format(before="\n".join((ORDINARY_USER, before)))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_ordinary_user_becomes_root_of_an_empty_network_and_run_directory():
    result = enter()
    assert (result.returncode, result.stdout.split(None, 1)) == (0, ["0", "[] 1\n"]), result.stderr


@pytest.mark.parametrize("before, reason", [
    ("open('/proc/sys/user/max_user_namespaces', 'w').write('0')", "user.max_user_namespaces is 0"),
    ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "this process has threads already"),
])
def test_refusal_is_one_line_that_names_the_reason(before, reason):
    result = enter(before)
    assert result.returncode == 1
    assert result.stderr.startswith("refused: no private namespaces: ") and reason in result.stderr
    assert result.stderr.count("\n") == 1
