"""./kdrift bisect --git over commits of a real kernel tree, each built and booted: `./kdrift selftest --tree`.

The tree is the source package of Debian's 6.12: some 6 GB in TMPDIR with what is built. Only the first of the three bisections builds
a kernel whole, the others take it from ccache.
"""
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.temporary import GuardedDirectory
from tests.harness.sessions import ROOT
from tests.harness.test_bisect_tree import git, looked_at

SOURCE = "/usr/src/linux-source-6.12.tar.xz"
COMMITS = 64
SEEDS = 4
PATIENCE = 3 * 3600                         # seconds for one bisection, of which most are builds, on a busy host
# The neutral commits append a comment to one of these, which the small configuration builds, or to one that no configuration builds.
BUILT = sorted(f"net/ipv4/{name}.c" for name in (
    "af_inet", "arp", "devinet", "fib_frontend", "fib_rules", "fib_semantics", "fib_trie", "icmp", "igmp", "inet_connection_sock",
    "inet_hashtables", "inetpeer", "ip_input", "ip_options", "ip_output", "ip_sockglue", "ping", "raw", "route", "syncookies", "tcp",
    "tcp_input", "tcp_ipv4", "tcp_metrics", "tcp_minisocks", "tcp_output", "tcp_timer", "udp"))
UNRELATED = ["Documentation/networking/ip-sysctl.rst", "drivers/net/ethernet/intel/e1000e/netdev.c", "MAINTAINERS"]


@dataclass(frozen=True)
class Bug:
    """A test that notices it, and what is asked of the test; `place` is its number among the commits, from 1 on, and `broken` are those
    that do not build."""

    file: str
    old: str
    new: str
    test: str
    place: int
    broken: tuple[int, ...]
    options: tuple[str, ...] = ()


BUGS = {
    "header shorter than 20 bytes": Bug(
        "net/ipv4/raw.c", "\tif (iphlen > length || iphlen < sizeof(*iph))", "\tif (iphlen > length)",
        "tests/rawbuf/test_hdrincl.py::test_hdrincl_with_invalid_ihl_is_refused[0]", 23, (31, 32, 33)),
    "late data is acknowledged": Bug(
        "net/ipv4/tcp_minisocks.c", "\t\t    TCP_SKB_CB(skb)->end_seq != rcv_nxt + 1)\n\t\t\treturn TCP_TW_RST;",
        "\t\t    TCP_SKB_CB(skb)->end_seq != rcv_nxt + 1)\n\t\t\treturn TCP_TW_ACK;",
        "tests/timewait/test_fin_wait2.py::test_data_for_an_orphan_in_fin_wait2_is_answered_with_rst[ipv4]", 58, (47, 48, 60)),
    "twice the user timeout": Bug(
        "net/ipv4/tcp_timer.c", "\t\t    elapsed >= msecs_to_jiffies(user_timeout) &&",
        "\t\t    elapsed >= msecs_to_jiffies(user_timeout) * 2 &&",
        "tests/keepalive/test_user_timeout.py::test_user_timeout_overrides_the_probe_count[ipv4]", 7, (15, 16, 32),
        ("--measurement", "keepalive.user_timeout.1s_1s_1500ms")),
}


@pytest.fixture(scope="module")
def linux():
    """A checkout with the package's version as its only commit, tagged `good`."""
    with GuardedDirectory() as directory:
        subprocess.run(["tar", "-xf", SOURCE, "-C", directory], check=True)
        source = Path(directory, "linux-source-6.12")
        git(source, "init", "-q", "-b", "main")
        git(source, "config", "gc.auto", "0")       # it would take the processors from the builds
        git(source, "add", "--force", "--all")
        git(source, "commit", "-q", "-m", "Linux 6.12")
        git(source, "tag", "good")
        yield source


def append(source, name, text):
    with (source / name).open("a") as file:
        file.write(text)


def commit_all(source, bug):
    """The commits of a bug on a branch of its own, whose tip is tagged `bad`; the hash of the one that has the bug."""
    git(source, "checkout", "-q", "-B", "work", "good")
    found = ""
    for number in range(1, COMMITS + 1):
        name, subject = (BUILT + UNRELATED)[number * 7 % len(BUILT + UNRELATED)], "a comment"
        comment = f"/* {number} */\n"
        if number == bug.place:
            name, subject = bug.file, "the bug"
            text = (source / name).read_text()
            assert text.count(bug.old) == 1
            (source / name).write_text(text.replace(bug.old, bug.new))
        elif number in bug.broken:
            subject = "half done"
            append(source, "net/ipv4/protocol.c", "#error half done\n")
        elif number - 1 in bug.broken:
            name, subject = "net/ipv4/protocol.c", "the other half"
            text = (source / name).read_text()
            (source / name).write_text(text.replace("#error half done\n", ""))
        else:
            append(source, name, comment)
        git(source, "commit", "-q", "-a", "-m", f"{subject} ({number})")
        if number == bug.place:
            found = git(source, "rev-parse", "HEAD").strip()
    git(source, "tag", "--force", "bad")
    return found


def started(source, report, bug):
    command = ["./kdrift", "bisect", bug.test, "good", "bad", "--git", str(source), "--report", str(report), "--confirm", str(SEEDS),
               *bug.options]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True,
                            env={**os.environ, "CCACHE_DIR": str(source.parent / "ccache")})


def kill_after_some_builds(source, report, bug):
    """SIGKILL while a commit is built, once two are."""
    process = started(source, report, bug)
    while len(list(report.glob("images/*/bzImage"))) < 2:
        assert process.poll() is None
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("name, killed", [("header shorter than 20 bytes", True), ("late data is acknowledged", False),
                                          ("twice the user timeout", False)])
def test_the_commit_is_named_among_64_with_a_complete_certificate(linux, tmp_path, name, killed):
    bug, report = BUGS[name], tmp_path / "report"
    bad = commit_all(linux, bug)
    before = looked_at(linux)
    if killed:
        kill_after_some_builds(linux, report, bug)
        assert [git(linux, "rev-parse", "HEAD"), git(linux, "status", "--porcelain")] == [before[-1], ""]
    began = time.monotonic()
    with started(linux, report, bug) as process:
        said = ""
        for line in process.stdout:
            said += line
            sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {line}")
    text = (report / "result.txt").read_text()
    assert process.returncode == os.EX_OK, said
    assert text.endswith(f"#regzbot introduced: {bad}\n") and text.count(f": {SEEDS} of {SEEDS} seeds") == 3
    assert "does not build" in said
    assert looked_at(linux) == before
    assert not (report / "tree").exists()
