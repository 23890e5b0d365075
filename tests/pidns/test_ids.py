"""A process has a PID in each PID namespace that it is in; each interface shows the one in the caller's namespace
(pid_namespaces(7))."""

import errno
import fcntl
import os
import select
import signal
from pathlib import Path

import pytest

from fixtures.pidns import Guest, fields, nspid, pidfd_ids
from netns import eventually
from netns.attempt import errno_of, refused
from netns.hosts.actor import Actor

# Lines of all kernels since 5.10, whatever their configuration.
STATUS = """
    Name Umask State Tgid Ngid Pid PPid TracerPid Uid Gid FDSize Groups NStgid NSpid NSpgid NSsid VmPeak VmSize VmLck VmPin VmHWM VmRSS
    RssAnon RssFile RssShmem VmData VmStk VmExe VmLib VmPTE VmSwap CoreDumping THP_enabled Threads SigQ SigPnd ShdPnd SigBlk
    SigIgn SigCgt CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Speculation_Store_Bypass voluntary_ctxt_switches
    nonvoluntary_ctxt_switches
""".split()


def test_first_process_of_a_namespace_has_pid_1_and_parent_pid_0(nested):
    """getpid(2) and getppid(2) use the caller's namespace, in which the parent has no PID."""
    assert nested.ask("ids") == (1, 0)


def test_nspid_lists_the_pids_from_the_outermost_namespace_inwards(nested):
    """The same three as from SCM_CREDENTIALS (here), fork(2) (in the middle) and getpid(2) (inside).

    Source: proc_pid_status(5), NSpid; task_state(), fs/proc/array.c.
    """
    here, _in_middle, _inside = nested.pids
    assert nspid(f"/proc/{here}/status") == nested.pids


def test_proc_status_agrees_with_the_system_calls(nested):
    """A process group and a session from outside have no PID inside: 0."""
    here, *_ = nested.pids
    own = "\t".join(map(str, nested.pids))
    found = fields(f"/proc/{here}/status")
    expected = {
        "Tgid": f"{here}", "Ngid": "0", "Pid": f"{here}", "TracerPid": "0", "NStgid": own, "NSpid": own,
        "NSpgid": f"{os.getpgid(here)}\t0\t0", "NSsid": f"{os.getsid(here)}\t0\t0",
    }
    assert {name: found[name] for name in expected} == expected
    assert int(fields("/proc/self/status")["PPid"]) == os.getppid()


def test_proc_status_lines_keep_their_names_and_order():
    """ps, container runtimes and monitoring tools find them by name (proc_pid_status(5))."""
    names = [name for name in fields("/proc/self/status") if name in STATUS]
    assert names == STATUS


def test_proc_of_a_namespace_shows_the_pids_of_that_namespace(nested):
    """A /proc mounted inside a namespace shows its processes by their PIDs there, and NSpid from there inwards."""
    _here, in_middle, inside = nested.pids
    nested.middle.call("mount_proc")
    assert nested.middle.call("nspid", in_middle) == [in_middle, inside]
    nested.ask("mount_proc")
    assert nested.ask("nspid", "self") == [inside]


def test_scm_credentials_have_the_senders_pid_in_the_receivers_namespace(nested):
    """A sender outside the receiver's namespace has PID 0 (unix(7); pid_vnr(), net/core/scm.c)."""
    here, *_ = nested.pids
    nested.ask("send_credentials")
    assert nested.receive_sender() == here == nspid(f"/proc/{here}/status")[0]

    nested.link.send(b"from here")
    assert nested.ask("receive_sender") == 0


def test_pidfd_fdinfo_shows_the_pids_of_the_readers_proc(nested):
    """Pid and NSpid in fdinfo; Pid is 0 for a process that this /proc does not show (pidfd_show_fdinfo())."""
    here, in_middle, inside = nested.pids
    pidfd = os.pidfd_open(here)
    assert pidfd_ids(pidfd) == (here, nested.pids)

    nested.ask("mount_proc")
    nested.send_descriptor(pidfd)
    assert nested.ask("received_pidfd_ids") == (inside, [inside])
    nested.send_descriptor(os.pidfd_open(os.getpid()))
    assert nested.ask("received_pidfd_ids")[0] == 0


def test_pidfd_of_an_outer_process_sends_no_signal_from_inside(nested):
    """pidfd_send_signal(2): EINVAL unless the process is in the caller's namespace or a descendant; from outside it works."""
    here, *_ = nested.pids
    signal.pidfd_send_signal(os.pidfd_open(here), 0)

    nested.send_descriptor(os.pidfd_open(os.getpid()))
    with refused("EINVAL", "pidfd_send_signal() to a process outside the namespace"):
        nested.ask("signal_received_pidfd")


def test_f_getown_returns_the_pid_in_the_callers_namespace(nested):
    """F_SETOWN and F_GETOWN translate PIDs; an owner that the caller cannot see is 0 (fcntl(2); f_getown(), fs/fcntl.c)."""
    here, in_middle, inside = nested.pids
    fcntl.fcntl(nested.shared, fcntl.F_SETOWN, here)
    assert fcntl.fcntl(nested.shared, fcntl.F_GETOWN) == here
    assert (nested.middle.call("owner"), nested.ask("owner")) == (in_middle, inside)

    fcntl.fcntl(nested.shared, fcntl.F_SETOWN, os.getpid())
    assert nested.ask("owner") == 0


@pytest.mark.parametrize("sender, expected", [("here", 0), ("itself", 1)])
def test_si_pid_is_the_senders_pid_in_the_receivers_namespace(nested, sender, expected):
    """0 for a sender outside that namespace (pid_namespaces(7))."""
    here, _in_middle, inside = nested.pids
    nested.ask("block", signal.SIGUSR1)
    if sender == "here":
        os.kill(here, signal.SIGUSR1)
    else:
        nested.ask("kill", inside, signal.SIGUSR1)
    assert nested.ask("signal_sender", signal.SIGUSR1) == expected


def test_kill_of_a_pid_from_an_outer_namespace_fails_with_esrch(nested):
    """kill(2) looks up a PID in the caller's namespace."""
    here, *_ = nested.pids
    with refused("ESRCH", "kill() of a process outside the namespace"):
        nested.ask("kill", here, 0)


def test_sigkill_ends_the_init_of_a_namespace_only_from_outside(nested):
    """From inside the kernel ignores it (pid_namespaces(7))."""
    here, _in_middle, inside = nested.pids
    nested.ask("kill", inside, signal.SIGKILL)
    assert nested.ask("ids")[0] == inside

    pidfd = os.pidfd_open(here)
    os.kill(here, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0] == [pidfd]


def test_wait_returns_the_pid_that_fork_returned(nested):
    """In the parent's namespace, with the child's exit status; the first child of PID 1 is PID 2 there."""
    assert nested.ask("fork_and_wait", 42) == (2, 2, 42)


def test_bpf_get_ns_current_pid_tgid_agrees_with_gettid_and_getpid(nested):
    """With the task's own namespace it returns the IDs of the thread and of the process."""
    assert nested.ask("bpf_ids") == (1, 1)
    assert nested.middle.call("bpf_ids") == (nested.middle.call("ids")[0],) * 2


def test_bpf_pidns_info_distinguishes_thread_and_process(nested):
    """`pid` is the thread, `tgid` the process: in a second thread they differ."""
    from_bpf, (thread, process) = nested.ask("ids_of_a_thread")
    assert from_bpf == (thread, process) and thread != process == nested.ask("ids")[0]


def test_bpf_get_ns_current_pid_tgid_refuses_another_namespace(nested):
    """EINVAL for a namespace other than the task's own, even for an outer one that the task is in as well."""
    outer = os.stat("/proc/self/ns/pid")
    assert nested.ask("bpf_ids", (outer.st_dev, outer.st_ino)) == -errno.EINVAL


def test_bpf_get_current_pid_tgid_returns_the_pid_in_the_initial_namespace(nested):
    """The first of NSpid, read in the initial namespace."""
    initial = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
    if os.stat("/proc/self/ns/pid").st_ino != initial:
        pytest.skip("needs the initial PID namespace: this is a container")
    assert nested.ask("initial_id") == nested.pids[0]


def test_clone3_set_tid_creates_a_process_with_the_requested_pids(nested):
    """clone3(2): PIDs in this namespace and its ancestors, innermost first; EEXIST for one that is in use, EINVAL for more PIDs than
    namespaces. In the initial namespace it needs a privilege there."""
    def created(*ids):
        return errno_of(nested.ask, "fork_as", list(ids))

    assert created(501, 601) == 501
    here = nested.receive_sender()
    assert nspid(f"/proc/{here}/status") == [here, 601, 501]
    assert [created(501), created(1, 1, 1, 1)] == ["EEXIST", "EINVAL"]
    everywhere = (502, 602, 30602)
    if created(*everywhere) != "EPERM":
        here = nested.receive_sender()
        assert nspid(f"/proc/{here}/status") == [30602, 602, 502]
        nested.ask("end", 502)
    nested.ask("end", 501)


def test_pid_namespace_ends_when_its_last_process_is_reaped(nested):
    """Its init takes all others with it, and waits until those that entered from outside are reaped by their parents
    (pid_namespaces(7); zap_pid_ns_processes())."""
    with Actor(Guest) as guest:
        guest.call("join", nested.middle.pid)
        child = guest.call("fork_child")
        assert nspid(f"/proc/{child}/status")[0] == child and len(nspid(f"/proc/{child}/status")) == len(nested.pids) - 1
        nested.middle.signal(signal.SIGKILL)
        eventually("State of the child in /proc", lambda: fields(f"/proc/{child}/status")["State"], "Z (zombie)", within=5)
        assert nested.middle.state != "Z"

        assert guest.call("reap", child) == signal.SIGKILL
        eventually("/proc entry of the middle process", lambda: Path(f"/proc/{nested.middle.pid}").exists(), False, within=5)
