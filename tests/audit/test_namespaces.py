"""Audit belongs to the initial user and PID namespaces; control and messages work from any network namespace.

Source: audit_netlink_ok() and audit_multicast_bind() in kernel/audit.c.
"""

from netns import approx_timer, eventually, timer_slack
from netns.attempt import errno_name, refused
from netns.libc import CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUSER


def refusal(process, method, *arguments):
    """The name of the errno that this call fails with, None if it succeeds."""
    try:
        process.call(method, *arguments)
    except OSError as error:
        return errno_name(error.errno)


def test_audit_requests_from_another_user_namespace_get_econnrefused(audit):
    """Control and messages alike: a container's login takes audit for not configured and lets its users in. Root there
    has all capabilities."""
    process = audit.process(unshare=CLONE_NEWUSER)

    requests = [("status",), ("set_pid_0",), ("register",), ("user", "hello")]
    assert [refusal(process, *request) for request in requests] == ["ECONNREFUSED"] * 4


def test_readlog_cannot_be_joined_from_another_user_namespace(audit):
    """EPERM: CAP_AUDIT_READ counts in the initial user namespace only."""
    with refused("EPERM", "joining AUDIT_NLGRP_READLOG in a user namespace"):
        audit.process(unshare=CLONE_NEWUSER, multicast=True)


def test_process_in_another_pid_namespace_may_log_but_not_control(audit):
    """EPERM for status and registration; a message is logged with the PID of the initial namespace."""
    daemon, process = audit.daemon(), audit.process(unshare=CLONE_NEWPID)

    assert [refusal(process, *request) for request in [("status",), ("register",)]] == ["EPERM"] * 2
    assert refusal(process, "user", "hello") is None
    record = daemon.call("receive_until", "hello")[-1]
    assert record.text.startswith(f"pid={process.pid} ")


def test_audit_daemon_can_run_in_another_network_namespace(audit):
    """The kernel registers it with its namespace and sends the records there."""
    daemon, sender = audit.process(unshare=CLONE_NEWNET), audit.process()
    daemon.call("register")
    sender.call("user", "hello")

    assert audit.status().pid == daemon.pid
    assert daemon.call("receive_until", "hello")[-1].message == "hello"


def test_multicast_reader_in_another_network_namespace_gets_nothing(audit):
    """It can join, but records go to the group in the initial network namespace only; a reader there gets this one."""
    elsewhere = audit.process(unshare=CLONE_NEWNET, multicast=True)
    here, sender = audit.process(multicast=True), audit.process()
    sender.call("user", "hello")

    assert here.call("receive_until", "hello")[-1].message == "hello"
    assert elsewhere.call("receive") == []


def test_full_daemon_in_another_network_namespace_unregisters_in_100_ms(audit, measure):
    """The kernel's socket in each network namespace has the limit of 100 ms."""
    daemon = audit.full_daemon(unshare=CLONE_NEWNET)

    reply = daemon.timed("unregister")

    assert measure("audit.unregister_held_elsewhere", reply.seconds, "s", timer_slack(0.1)) == approx_timer(0.1)
    eventually("pid of the registered audit daemon", lambda: audit.status().pid, 0, within=5)
