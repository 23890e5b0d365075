"""Somebody kills parts of a session from outside: what is left of it goes on or goes away, and says so."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.harness.sessions import CASES, KERNEL, LONGEST, OTHER, Session, eventually, image_of, one_line

QEMU, LAUNCHER = "name=kdrift.gateway", "vm.launcher"       # in their command lines
BEFORE = "::test_before"
PASSED = {"test_before": "passed", "test_is_busy": "passed", "test_after": "passed"}
SOON = 20                                   # seconds in which all must be gone
IN_THE_TEST = 5                             # seconds of QEMU's processor time; its first test begins after one or two


def endless(directory, *options):
    """A session that is in the middle of a test when it has printed BEFORE."""
    return Session(directory, "test_endless.py", "-v", *options)


def cpu_seconds(pid):
    """What a process has used of the processors (proc(5), stat, utime and stime)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:13])) / os.sysconf("SC_CLK_TCK")


def kill(session, name):
    os.kill(session.wait_for_process(name), signal.SIGKILL)


@pytest.fixture(scope="module")
def qemu_killed(tmp_path_factory):
    with Session(tmp_path_factory.mktemp("qemu"), "test_busy.py", "-v") as session:
        session.wait_for(BEFORE)
        kill(session, QEMU)
        return session.end()


def test_killed_machine_is_no_verdict_on_the_kernel(qemu_killed):
    """The test runs once more in a restored machine and counts as what it does there; the first attempt is kept."""
    assert qemu_killed.outcomes() == PASSED
    assert qemu_killed.tests()["test_is_busy"]["attempts"] == ["lost"]
    assert qemu_killed.status == 0


def test_killed_machine_is_reported(qemu_killed):
    one_line(qemu_killed.output, f"{KERNEL}  lost     {CASES}/test_busy.py::test_is_busy")
    one_line(qemu_killed.output, f"LOST {CASES}/test_busy.py::test_is_busy on {KERNEL}", "QEMU exited: killed by SIGKILL")


def test_launcher_killed_twice_is_a_lost_test(tmp_path):
    killed = []
    with endless(tmp_path) as session:
        for _ in range(2):
            machine, launcher = session.wait_for_process(QEMU, unlike=killed), session.wait_for_process(LAUNCHER, unlike=killed)
            eventually(lambda machine=machine: cpu_seconds(machine) > IN_THE_TEST, LONGEST, lambda: session.output)
            os.kill(launcher, signal.SIGKILL)
            killed += [machine, launcher]
        session.end()

    assert session.outcomes() == {"test_before": "passed", "test_never_ends": "lost"}
    test = session.tests()["test_never_ends"]
    assert test["attempts"] == ["lost"]
    assert test["message"].startswith("the machine was lost: the launcher was killed")
    assert session.status == 3


@pytest.mark.parametrize("whom, what", [("session", "SIGINT"), ("group", "SIGINT"), ("group", "SIGTERM"), ("session", "SIGTERM")])
def test_interrupt_ends_everything(tmp_path, whom, what):
    """Ctrl-C reaches the whole process group; `kill -INT` only the session. CI systems cancel a job with SIGTERM."""
    with endless(tmp_path) as session:
        session.wait_for(BEFORE)
        {"session": os.kill, "group": os.killpg}[whom](session.process.pid, signal.Signals[what])
        session.end()

    assert session.status == session.results["run"]["exit_status"] == 130
    assert session.outcomes() == {"test_before": "passed"}
    one_line(session.output, "!!! KeyboardInterrupt !!!")
    # The report is whole, and says what is not in it.
    assert session.results["run"]["unfinished"] == "interrupted"
    assert session.results["kernels"][0]["unrun"] == [f"{CASES}/test_endless.py::test_never_ends"]
    one_line(session.output, f"{KERNEL}: 1 passed, 1 not run")


def test_sigterm_leaves_a_report_of_the_running_kernel_too(tmp_path):
    with Session(tmp_path, "test_endless.py", "-v", kernels=()) as session:
        session.wait_for("PASSED")
        session.process.send_signal(signal.SIGTERM)
        session.end(within=10)

    assert session.status == session.results["run"]["exit_status"] == 130
    assert session.results["run"]["unfinished"] == "interrupted"
    assert session.outcomes("running") == {"test_before": "passed"}


def test_interrupt_while_a_kernel_boots(tmp_path):
    with endless(tmp_path, "--fresh") as session:
        session.wait_for(f"{KERNEL}  booting")
        session.wait_for_process(QEMU)
        os.killpg(session.process.pid, signal.SIGINT)
        session.end()

    assert session.status == 130


@pytest.mark.parametrize("moment", ["booting", "running"])
def test_killed_session_leaves_nothing(tmp_path, moment):
    with endless(tmp_path, *(["--fresh"] if moment == "booting" else [])) as session:
        session.wait_for(f"{KERNEL}  {moment}")
        session.wait_for_process(QEMU)
        session.process.kill()
        session.end(within=SOON)

    assert session.status == -signal.SIGKILL


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_kernel_boots_while_another_is_fetched_and_leaves_nothing(tmp_path, how):
    """The mirror takes the request and does not answer it."""
    cache = tmp_path / "cache"
    with socket.create_server(("127.0.0.1", 0)) as mirror, Session(
            tmp_path, "test_endless.py", f"--mirror=http://127.0.0.1:{mirror.getsockname()[1]}/debian", KDRIFT_CACHE=str(cache),
            kernels=[str(image_of(KERNEL)), OTHER]) as session:
        session.wait_for_process(QEMU)
        assert "test session starts" not in session.output
        session.process.send_signal(how)
        session.end(within=SOON)

    assert session.status == (130 if how == signal.SIGTERM else -how)
    assert [*(cache / "states").iterdir(), *(cache / "tmp").iterdir()] == []
