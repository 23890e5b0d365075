"""Audit belongs to the initial user and PID namespaces; the network namespace does not matter to control and messages.

Source: audit_netlink_ok() and audit_multicast_bind() in kernel/audit.c.
"""

from netns import approx_timer, eventually, timer_slack
from netns.libc import CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUSER
from netns.attempt import name, refused


def refusal(process, method, *arguments):
    """The name of the errno that the kernel refuses this call with, None if it does not."""
    try:
        process.call(method, *arguments)
    except OSError as error:
        return name(error.errno)


def test_another_user_namespace_is_told_that_there_is_no_audit(audit):
    """ECONNREFUSED for control and for messages, so that a container's login believes audit is not configured and
    lets its users in; root there has all capabilities."""
    process = audit.process(unshare=CLONE_NEWUSER)

    requests = [("status",), ("set_pid_0",), ("register",), ("user", "hello")]
    assert [refusal(process, *request) for request in requests] == ["ECONNREFUSED"] * 4


def test_another_user_namespace_may_not_listen(audit):
    """EPERM for joining READLOG: CAP_AUDIT_READ counts in the initial user namespace only."""
    with refused("EPERM", "a multicast reader in a user namespace"):
        audit.process(unshare=CLONE_NEWUSER, multicast=True)


def test_another_pid_namespace_may_log_but_not_control(audit):
    """EPERM for status and registration; a message is logged with the process id of the initial namespace."""
    daemon, process = audit.daemon(), audit.process(unshare=CLONE_NEWPID)

    assert [refusal(process, *request) for request in [("status",), ("register",)]] == ["EPERM"] * 2
    assert refusal(process, "user", "hello") is None
    record = daemon.call("receive_until", "hello")[-1]
    assert record.text.startswith(f"pid={process.pid} ")


def test_a_daemon_may_live_in_another_network_namespace(audit):
    """It is registered with its namespace, and the records find it there."""
    daemon, sender = audit.process(unshare=CLONE_NEWNET), audit.process()
    daemon.call("register")
    sender.call("user", "hello")

    assert audit.status().pid == daemon.pid
    assert daemon.call("receive_until", "hello")[-1].message == "hello"


def test_readers_of_another_network_namespace_hear_nothing(audit):
    """Joining succeeds, but records are sent to the group in the initial network namespace alone; a reader there shows
    that there was one."""
    elsewhere = audit.process(unshare=CLONE_NEWNET, multicast=True)
    here, sender = audit.process(multicast=True), audit.process()
    sender.call("user", "hello")

    assert here.call("receive_until", "hello")[-1].message == "hello"
    assert elsewhere.call("receive") == []


def test_a_full_daemon_elsewhere_holds_its_unregistering_as_long(audit, measure):
    """The limit of 100 ms is set for the kernel's socket of each network namespace."""
    daemon = audit.full_daemon(unshare=CLONE_NEWNET)

    reply = daemon.timed("unregister")

    assert measure("audit.unregister_held_elsewhere", reply.seconds, "s", timer_slack(0.1)) == approx_timer(0.1)
    eventually("pid of the registered audit daemon", lambda: audit.status().pid, 0, within=5)
