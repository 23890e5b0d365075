"""The audit daemon: one process, registered by itself, replaced only when it is gone (audit_set_pid(3))."""

import os
import signal

from netns import approx_timer, eventually, stopwatch, timer_slack
from netns.attempt import errno_name, refused


def refusal(process, method, *arguments):
    """The name of the errno that this call fails with, None if it succeeds."""
    try:
        process.call(method, *arguments)
    except OSError as error:
        return errno_name(error.errno)


def test_the_registered_daemon_gets_the_records(audit):
    """AUDIT_GET returns its PID, and a program's message reaches it with the sender's PID."""
    daemon, sender = audit.daemon(), audit.process()
    sender.call("user", "hello")

    record = daemon.call("receive_until", "hello")[-1]
    assert record.text.startswith(f"pid={sender.pid} uid=0 ")
    assert audit.status().pid == daemon.pid


def test_process_can_register_only_itself(audit):
    """EINVAL for another process's PID (AUDIT_SET, AUDIT_STATUS_PID)."""
    with refused("EINVAL", "registering a process other than the sender"):
        audit.control.set(pid=os.getppid() or 1)

    assert audit.status().pid == 0


def test_a_healthy_daemon_is_not_replaced(audit):
    """EEXIST: the kernel first sends the registered one a message (AUDIT_REPLACE)."""
    daemon, other = audit.daemon(), audit.process()

    assert refusal(other, "register") == "EEXIST"
    assert audit.status().pid == daemon.pid


def test_only_the_daemon_can_unregister_itself(audit):
    """EACCES for others, root included; no error for itself."""
    daemon, other = audit.daemon(), audit.process()

    assert refusal(other, "set_pid_0") == "EACCES"
    assert audit.status().pid == daemon.pid
    daemon.call("unregister")
    assert audit.status().pid == 0


def test_stopped_daemon_with_a_full_buffer_is_not_replaced(audit, measure):
    """The kernel tries for 100 ms to ask it (sk_sndtimeo of audit_net_init()) and keeps it: EEXIST. Kernels of the 5.4
    era could wait without limit, with the mutex held."""
    daemon, other = audit.full_daemon(), audit.process()
    daemon.signal(signal.SIGSTOP)
    eventually("process state of the audit daemon", lambda: daemon.state, "T", within=5)

    with stopwatch() as took:
        assert refusal(other, "register") == "EEXIST"
    assert measure("audit.replace_held", took.seconds, "s", timer_slack(0.1)) == approx_timer(0.1)
    assert audit.status().pid == daemon.pid


def test_a_dead_daemon_is_replaced(audit):
    """The kernel's message finds no socket (ECONNREFUSED); the new daemon registers and gets the records."""
    audit.daemon().kill()
    daemon, sender = audit.daemon(), audit.process()
    sender.call("user", "hello")

    assert daemon.call("receive_until", "hello")[-1].message == "hello"


def test_a_daemon_that_closed_its_socket_is_replaced(audit):
    """The socket counts, not the process."""
    closed = audit.daemon()
    closed.call("close")

    daemon = audit.daemon()
    assert audit.status().pid == daemon.pid != closed.pid
