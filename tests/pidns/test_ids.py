"""A process has one id in each namespace that it is in, and each interface shows the one of whoever asks
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

# What all kernels since 5.10 have, whatever their configuration.
STATUS = """
    Name Umask State Tgid Ngid Pid PPid TracerPid Uid Gid FDSize Groups NStgid NSpid NSpgid NSsid VmPeak VmSize VmLck VmPin VmHWM VmRSS
    RssAnon RssFile RssShmem VmData VmStk VmExe VmLib VmPTE VmSwap CoreDumping THP_enabled Threads SigQ SigPnd ShdPnd SigBlk
    SigIgn SigCgt CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Speculation_Store_Bypass voluntary_ctxt_switches
    nonvoluntary_ctxt_switches
""".split()


def test_first_process_of_a_namespace_is_1_and_its_parent_outside_is_0(nested):
    """getpid(2) and getppid(2) answer for the caller's namespace, where its parent has no id."""
    assert nested.ask("ids") == (1, 0)


def test_nspid_lists_the_ids_from_the_outermost_to_the_innermost(nested):
    """The same three as the sender's id in a message (here), fork(2) (in the middle) and getpid(2) (inside).

    Source: proc_pid_status(5), NSpid; task_state(), fs/proc/array.c.
    """
    here, _in_middle, _inside = nested.pids
    assert nspid(f"/proc/{here}/status") == nested.pids


def test_status_tells_what_the_system_calls_tell(nested):
    """A group and a session that began outside have no id inside: 0."""
    here, *_ = nested.pids
    own = "\t".join(map(str, nested.pids))
    found = fields(f"/proc/{here}/status")
    expected = {
        "Tgid": f"{here}", "Ngid": "0", "Pid": f"{here}", "TracerPid": "0", "NStgid": own, "NSpid": own,
        "NSpgid": f"{os.getpgid(here)}\t0\t0", "NSsid": f"{os.getsid(here)}\t0\t0",
    }
    assert {name: found[name] for name in expected} == expected
    assert int(fields("/proc/self/status")["PPid"]) == os.getppid()


def test_the_lines_of_status_keep_their_names_and_order():
    """ps, container runtimes and monitors look for them by name (proc_pid_status(5))."""
    names = [name for name in fields("/proc/self/status") if name in STATUS]
    assert names == STATUS


def test_proc_of_a_namespace_begins_with_its_own_ids(nested):
    """A /proc mounted inside a namespace shows its processes by their ids there, and NSpid from there on."""
    _here, in_middle, inside = nested.pids
    nested.middle.call("own_proc")
    assert nested.middle.call("nspid", in_middle) == [in_middle, inside]
    nested.ask("own_proc")
    assert nested.ask("nspid", "self") == [inside]


def test_credentials_have_the_senders_id_in_the_receivers_namespace(nested):
    """SCM_CREDENTIALS: who is in no namespace below the receiver's is 0 (unix(7); pid_vnr(), net/core/scm.c)."""
    here, *_ = nested.pids
    nested.ask("send_credentials")
    assert nested.receive_sender() == here == nspid(f"/proc/{here}/status")[0]

    nested.link.send(b"from here")
    assert nested.ask("receive_sender") == 0


def test_pidfd_shows_the_ids_that_the_readers_proc_has(nested):
    """Pid and NSpid in fdinfo; Pid is 0 for a process that this /proc does not show (pidfd_show_fdinfo())."""
    here, in_middle, inside = nested.pids
    pidfd = os.pidfd_open(here)
    assert pidfd_ids(pidfd) == (here, nested.pids)

    nested.ask("own_proc")
    nested.hand_over(pidfd)
    assert nested.ask("received_pidfd_ids") == (inside, [inside])
    nested.hand_over(os.pidfd_open(os.getpid()))
    assert nested.ask("received_pidfd_ids")[0] == 0


def test_pidfd_of_an_outer_process_signals_nobody_from_inside(nested):
    """pidfd_send_signal(2): EINVAL unless the process is in the caller's namespace or below; from outside it works."""
    here, *_ = nested.pids
    signal.pidfd_send_signal(os.pidfd_open(here), 0)

    nested.hand_over(os.pidfd_open(os.getpid()))
    with refused("EINVAL", "a signal through the pidfd of a process outside"):
        nested.ask("signal_received_pidfd")


def test_owner_of_a_socket_has_the_id_of_whoever_asks(nested):
    """F_SETOWN and F_GETOWN translate; an owner that the asker cannot see is 0 (fcntl(2); f_getown(), fs/fcntl.c)."""
    here, in_middle, inside = nested.pids
    fcntl.fcntl(nested.shared, fcntl.F_SETOWN, here)
    assert fcntl.fcntl(nested.shared, fcntl.F_GETOWN) == here
    assert (nested.middle.call("owner"), nested.ask("owner")) == (in_middle, inside)

    fcntl.fcntl(nested.shared, fcntl.F_SETOWN, os.getpid())
    assert nested.ask("owner") == 0


@pytest.mark.parametrize("sender, expected", [("here", 0), ("itself", 1)])
def test_signal_names_its_sender_as_the_receiver_knows_it(nested, sender, expected):
    """si_pid is 0 from outside the receiver's namespace (pid_namespaces(7))."""
    here, _in_middle, inside = nested.pids
    nested.ask("block", signal.SIGUSR1)
    if sender == "here":
        os.kill(here, signal.SIGUSR1)
    else:
        nested.ask("kill", inside, signal.SIGUSR1)
    assert nested.ask("signalled_by", signal.SIGUSR1) == expected


def test_ids_of_outside_mean_nobody_inside(nested):
    """kill(2) looks an id up in the caller's namespace: ESRCH for one that only outer ones have."""
    here, *_ = nested.pids
    with refused("ESRCH", "kill() of a process outside the namespace"):
        nested.ask("kill", here, 0)


def test_first_process_is_safe_from_its_own_namespace_alone(nested):
    """SIGKILL from inside is ignored; from outside it ends the process (pid_namespaces(7))."""
    here, _in_middle, inside = nested.pids
    nested.ask("kill", inside, signal.SIGKILL)
    assert nested.ask("ids")[0] == inside

    pidfd = os.pidfd_open(here)
    os.kill(here, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0] == [pidfd]


def test_wait_returns_the_id_that_fork_gave(nested):
    """In the namespace of the parent, with the child's status; the first child of process 1 is 2 there."""
    assert nested.ask("fork_and_wait", 42) == (2, 2, 42)


def test_bpf_helper_gives_the_ids_of_the_programs_own_namespace(nested):
    """bpf_get_ns_current_pid_tgid(): the thread's id and the process's, as gettid(2) and getpid(2) do."""
    assert nested.ask("bpf_ids") == (1, 1)
    assert nested.middle.call("bpf_ids") == (nested.middle.call("ids")[0],) * 2


def test_bpf_helper_tells_thread_from_process(nested):
    """`pid` of struct bpf_pidns_info is the thread, `tgid` the process: of a second thread they differ."""
    from_bpf, (thread, process) = nested.ask("ids_of_a_thread")
    assert from_bpf == (thread, process) and thread != process == nested.ask("ids")[0]


def test_bpf_helper_knows_no_other_namespace(nested):
    """EINVAL for a namespace that is not the current process's own, even one that it is in as well."""
    outer = os.stat("/proc/self/ns/pid")
    assert nested.ask("bpf_ids", (outer.st_dev, outer.st_ino)) == -errno.EINVAL


def test_bpf_helper_without_a_namespace_gives_the_initial_ids(nested):
    """bpf_get_current_pid_tgid() is the first of NSpid, seen from the initial namespace."""
    initial = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
    if os.stat("/proc/self/ns/pid").st_ino != initial:
        pytest.skip("the initial ids are not known here: this is a container")
    assert nested.ask("initial_id") == nested.pids[0]


def test_a_process_is_restored_with_the_ids_that_it_had(nested):
    """clone3(2), set_tid: ids in this namespace and in those around it, the innermost first; EEXIST for one that is taken, EINVAL for
    more than there are namespaces. In the initial one it takes a privilege there."""
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


def test_a_namespace_ends_when_its_last_process_was_reaped(nested):
    """Its first one takes all others with it, and waits for those that entered from outside until their parents have reaped them
    (pid_namespaces(7); zap_pid_ns_processes())."""
    with Actor(Guest) as guest:
        guest.call("join", nested.middle.pid)
        child = guest.call("have_child")
        assert nspid(f"/proc/{child}/status")[0] == child and len(nspid(f"/proc/{child}/status")) == len(nested.pids) - 1
        nested.middle.signal(signal.SIGKILL)
        eventually("State of the child in /proc", lambda: fields(f"/proc/{child}/status")["State"], "Z (zombie)", within=5)
        assert nested.middle.state != "Z"

        assert guest.call("reap", child) == signal.SIGKILL
        eventually("whether /proc has the process in the middle", lambda: Path(f"/proc/{nested.middle.pid}").exists(), False, within=5)
