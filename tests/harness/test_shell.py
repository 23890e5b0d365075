"""`--shell`: a terminal on the hosts of a failed test, and a clock that stands still while nobody types."""

import os
import re
import subprocess
import termios
import threading
import time

import pytest

from tests.harness.sessions import KERNEL, LONGEST, ROOT, Session, eventually, heed_interrupts, one_line, run

DEADLINE = 20                               # seconds of wall time; a machine that is silent for longer is given up
HELD = 1                                    # seconds that keys and commands may cost; an idle clock skips hours meanwhile
LEAVE = "\x1d"


class AtTerminal(Session):
    """A session with a terminal of its own; what it shows there is its output."""

    def __enter__(self):
        self.keyboard, terminal = os.openpty()
        os.set_blocking(self.keyboard, True)

        def takes_terminal():
            os.login_tty(terminal)
            heed_interrupts()

        self.log.touch()
        self.process = subprocess.Popen(self.command, cwd=ROOT, env={**self.environment, "TERM": "xterm"}, preexec_fn=takes_terminal)
        os.close(terminal)
        self.screen = threading.Thread(target=self._show)
        self.screen.start()
        return self

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.screen.join()
        os.close(self.keyboard)

    def _show(self):
        with self.log.open("ab", buffering=0) as log:
            while True:
                try:
                    log.write(os.read(self.keyboard, 4096))
                except OSError:             # EIO: the last process with the terminal has ended
                    return

    def type(self, keys):
        os.write(self.keyboard, keys.encode())

    def answers(self, command, prompt):
        """The lines that a command shows before the next prompt."""
        before = len(self.output)
        self.type(f"{command}\r")
        eventually(lambda: self.output[before:].endswith(prompt), LONGEST, lambda: f"no prompt {prompt!r}\n{self.output}")
        lines = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", self.output[before:]).splitlines()
        return "\n".join(line for line in lines[1:-1] if line)

    def uptime(self, prompt):
        return float(self.answers("cat /proc/uptime", prompt).split()[0])


def test_clock_of_the_guest_stands_still_at_the_prompt(tmp_path):
    """For longer than the deadline of a silent machine, and it skips as ever while a command runs."""
    with AtTerminal(tmp_path, "test_shell.py", "-k", "connection", "--shell", f"--deadline={DEADLINE}") as session:
        session.wait_for("client# ")
        before = session.uptime("client# ")
        time.sleep(DEADLINE + 1)
        after = session.uptime("client# ")
        session.answers("sleep 7200", "client# ")
        slept = session.uptime("client# ")
        session.type("exit\r")
        session.end()

    failed = float(re.search(r"on purpose at ([\d.]+)", session.output)[1])
    assert before - failed < HELD
    assert after - before < HELD
    assert 7200 < slept - after < 7200 + HELD
    assert (session.status, session.outcomes()) == (1, {"test_fails_with_a_connection": "failed"})


def test_shell_is_on_the_host_of_choice_and_reaches_the_others(tmp_path):
    with AtTerminal(tmp_path, "test_shell.py", "--shell-on", "server") as session:
        session.wait_for("server# ")
        own = session.answers("ip -4 -br address show dev to-router", "server# ")
        connections = session.answers("ss -tnH state established", "server# ")
        other = session.answers("on client ip -4 -br address show dev to-router", "server# ")
        names = session.answers("ip -n router -br link", "server# ")
        moved = session.answers("on client", "client# ") + session.answers("ss -tnH state established", "client# ")
        session.answers("exit", "server# ")
        session.type("sh -c 'echo begun; exec sleep 100000000'\r")
        session.wait_for("\nbegun")         # not sooner: bash loses an interrupt between its fork and the hand-over of the terminal
        session.answers("\x03", "server# ")
        session.answers("sleep 100000000 &", "server# ")
        session.type("exit\r")

        session.wait_for("machine# ")
        processes = session.answers("ps -e -o comm", "machine# ")
        session.type("exit\r")
        session.end()

    one_line(session.output, "test_fails_with_a_connection failed: Failed: on purpose")
    one_line(session.output, "Hosts: client, router, server; the shell runs on server.")
    assert " 198.51.100.1/24" in own and " 198.51.100.1:" in connections
    assert " 192.0.2.1/24" in other and " 192.0.2.1:" in moved
    assert "to-client@" in names and "to-server@" in names
    assert "python3" in processes and "sleep" not in processes
    assert (session.status, set(session.outcomes().values())) == (1, {"failed"})


def test_the_way_out_ends_the_run_and_gives_the_terminal_back(tmp_path):
    with AtTerminal(tmp_path, "test_shell.py", "-k", "connection", "--shell") as session:
        before = termios.tcgetattr(session.keyboard)
        session.wait_for("client# ")
        assert termios.tcgetattr(session.keyboard) != before
        session.type(f"sleep 100000000\r{LEAVE}")
        session.end()
        assert termios.tcgetattr(session.keyboard) == before

    assert session.status == 130


def test_crash_at_the_shell_is_a_crash_of_the_kernel(tmp_path):
    """The test runs once more in a restored machine, and its shell opens there."""
    with AtTerminal(tmp_path, "test_shell.py", "-k", "connection", "--shell") as session:
        session.wait_for("client# ")
        session.type("echo c > /proc/sysrq-trigger\r")
        session.wait_for("The clock stops while", times=2)
        eventually(lambda: session.output.endswith("client# "), LONGEST, lambda: session.output)
        session.type("exit\r")
        session.end()

    assert session.tests()["test_fails_with_a_connection"]["attempts"] == ["crashed"]


def test_shell_on_the_running_kernel(tmp_path):
    """In the private namespaces of the run; its clock is the machine's."""
    with AtTerminal(tmp_path, "test_shell.py", "-k", "connection", "--shell", kernels=()) as session:
        session.wait_for("client# ")
        own = session.answers("ip -4 -br address show dev to-router", "client# ")
        other = session.answers("on server ip -4 -br address show dev to-router", "client# ")
        session.type("exit\r")
        session.end()

    one_line(session.output, "The clock keeps running.")
    assert " 192.0.2.1/24" in own and " 198.51.100.1/24" in other
    assert session.status == 1


@pytest.mark.parametrize("kernels", [(), (KERNEL,)], ids=["running", "kernel"])
def test_no_terminal_is_a_usage_error(tmp_path, kernels):
    session = run(tmp_path, "test_shell.py", "--shell", kernels=kernels)
    assert session.status == 2
    assert session.output.splitlines() == [one_line(session.output, "ERROR: --shell needs a terminal"), ""]
