"""Other machines over ssh: hosts that run the tests, and builders that boot the kernels; what goes wrong there is one line."""

import itertools
import os
import platform
import subprocess
from contextlib import ExitStack
from unittest.mock import Mock

import pytest

from common.project import PROJECT
from hosts.session import Builder, FarSession, HostRun
from hosts.ssh import Host
from kernels.cache import Cache, default_root
from kernels.spec import resolve
from session.places import HERE, Place
from session.runs import KernelRun
from session.scheduler import LEAST, KernelScheduling, Shard
from tests.harness.sessions import KERNEL, LONGEST, Session, eventually, one_line, run
from tests.harness.ssh_server import Server, network, within, write_keys
from vm.job import Events

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sshd needs root, to be in a network of its own")
OUTCOMES, BUSY = "test_outcomes.py", "test_busy.py"
MACHINE = "name=kdrift.gateway"             # in QEMU's command line
FAILED, USAGE, NOT_BOOTED = 1, 2, 125
FIRST = 2201                                # port of the first server


@pytest.fixture(scope="module")
def net():
    with network() as holder:
        yield holder


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    directory = tmp_path_factory.mktemp("keys")
    write_keys(directory, FIRST)
    return directory


@pytest.fixture(scope="module")
def start(net, keys, tmp_path_factory):
    """Starts servers, each with processes and a temporary directory of its own; their cache is the usual one."""
    ports = itertools.count(FIRST)
    with ExitStack() as stack, Cache() as cache:
        def server(before="", root=cache.root):
            return stack.enter_context(Server(tmp_path_factory.mktemp("host"), keys, net, next(ports), root, before))
        yield server


@pytest.fixture(scope="module")
def host(start):
    return start()


@pytest.fixture(scope="module")
def options(keys):
    return [f"--ssh-config={keys / 'client'}"]


def nothing_is_left(server):
    eventually(lambda: not server.leftovers(), 10, lambda: f"left behind: {server.leftovers()}")
    assert not [line for line in processes() if str(server.temporary) in line]


def processes():
    return subprocess.run(["ps", "-ww", "-eo", "args", "--no-headers"], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, net, host, start, options):
    """One host that works among others that do not: unknown, not listening, refusing the key, and root without CAP_SYS_ADMIN."""
    bare = start("setpriv --bounding-set -sys_admin --inh-caps -sys_admin")
    names = {"host": host.name, "unknown": "no-such-host.invalid", "silent": f"root@127.0.0.1:{FIRST - 1}", "refused": "refused",
             "bare": bare.name}
    words = [*options, "-k", "passes or fails or skips or temporary", *(f"--ssh={name}" for name in names.values())]
    session = run(tmp_path_factory.mktemp("mixed"), OUTCOMES, *words, kernels=[], prefix=within(net))
    nothing_is_left(host)
    nothing_is_left(bare)
    return session, dict(zip(names, session.results["kernels"], strict=True))


def test_host_is_a_column_with_its_own_kernel(mixed, host):
    session, kernels = mixed
    assert session.outcomes(host.name) == {"test_passes": "passed", "test_has_a_temporary_directory": "passed", "test_fails": "failed",
                                           "test_fails_in_setup": "failed", "test_skips": "skipped"}
    assert (kernels["host"]["release"], kernels["host"]["clock"], kernels["host"]["qemu"]) == (platform.release(), "real", None)


def test_what_is_left_out_is_said_first(mixed, host):
    first = mixed[0].output.splitlines()[0]
    assert first.startswith(f"{host.name}: {platform.release()}, tests run in private namespaces; "
                            "without --own-machine the audit tests")


@pytest.mark.parametrize("which, reason", [
    ("unknown", "Could not resolve hostname"), ("silent", "Connection refused"), ("refused", "Permission denied (publickey"),
    ("bare", "no private namespaces: unshare: Operation not permitted; root lacks CAP_SYS_ADMIN here"),
])
def test_host_that_cannot_be_used_is_one_line(mixed, which, reason):
    session, kernels = mixed
    assert session.status == FAILED         # the host that works has tests that fail
    assert reason in kernels[which]["error"] and "\n" not in kernels[which]["error"]
    one_line(session.output.rpartition("- kernels -")[2], f"{kernels[which]['label']}: ", reason)


@pytest.mark.parametrize("words, status, reason", [
    (["--ssh=refused"], NOT_BOOTED, "Permission denied (publickey"),
    (["--ssh=not@a@host"], USAGE, "invalid host 'not@a@host': expected [user@]host[:port]"),
    ([f"--builder=root@127.0.0.1:{FIRST - 1}", f"--kernel={KERNEL}"], USAGE, "Connection refused"),
    (["--builder=root@127.0.0.1"], USAGE, "none is given for it"),
    (["--builder=root@lab=0", f"--kernel={KERNEL}"], USAGE, "--builder root@lab=0: '0' is no number of slots"),
    (["--builder=lab=2", "--builder=lab", f"--kernel={KERNEL}"], USAGE, "--builder lab: named more than once"),
    (["--slots=0", f"--kernel={KERNEL}"], USAGE, "--slots 0: boots no kernel on this machine, and no --builder is given"),
    (["--ssh=refused", "--shell"], USAGE, "--shell cannot be combined with --ssh, --builder or --vagrant"),
], ids=["host", "name", "builder", "builder without kernel", "builder without slots", "builder twice",
        "nowhere", "shell"])
def test_what_cannot_start_has_its_exit_status(tmp_path, net, host, options, words, status, reason):
    session = run(tmp_path, OUTCOMES, *options, *words, kernels=[], prefix=within(net))
    assert session.status == status
    one_line(session.output.partition("- kernels -")[0], reason)


def test_lost_connection_costs_the_test_that_ran(tmp_path, net, host, options):
    """It is run once more over a new connection, and the old one's directory and processes are gone. None shows a path of the session's
    machine to others there."""
    with Session(tmp_path, BUSY, *options, f"--ssh={host.name}", "-v", kernels=[], prefix=within(net)) as session:
        session.wait_for("test_before")
        there = [line for line in processes() if "-m hosts.remote" in line]
        assert there and not [line for line in there if str(PROJECT) in line or str(tmp_path) in line]
        subprocess.run(["kill", str(session.wait_for_process("hosts.remote"))], check=True)
        session.end()
    assert session.outcomes(host.name) == {"test_before": "passed", "test_is_busy": "passed", "test_after": "passed"}
    assert session.tests(host.name)["test_is_busy"]["attempts"] == ["lost"]
    nothing_is_left(host)


def test_host_that_is_gone_for_good_keeps_what_it_said(tmp_path, net, start, options):
    gone = start()
    with Session(tmp_path, BUSY, *options, f"--ssh={gone.name}", "-v", kernels=[], prefix=within(net)) as session:
        session.wait_for("test_before")
        gone.end()
        session.end()
    assert session.status == NOT_BOOTED
    assert session.outcomes(gone.name) == {"test_before": "passed", "test_is_busy": "lost"}
    assert "Connection refused" in session.results["kernels"][0]["error"]


def test_session_that_is_killed_leaves_nothing_there(tmp_path, net, host, options):
    with Session(tmp_path, BUSY, *options, f"--ssh={host.name}", "-v", kernels=[], prefix=within(net)) as session:
        session.wait_for("test_before")
        session.process.kill()
        session.process.wait()
        nothing_is_left(host)


def test_builder_boots_the_kernel(tmp_path, net, host, options):
    with Cache() as cache:
        release = resolve(KERNEL, cache).release            # the session's network has no mirror
    session = run(tmp_path, OUTCOMES, *options, "--offline", "-k", "passes", "--slots=0", f"--builder={host.name}", prefix=within(net))
    assert (session.status, session.outcomes(), session.releases) == (0, {"test_passes": "passed"}, {KERNEL: release})
    one_line(session.output, f"{KERNEL}: machines: 1 on {host.name}")
    assert session.results["kernels"][0]["qemu"]
    nothing_is_left(host)


@pytest.fixture
def filler(tmp_path):
    """A file of the user's own that is a shard beside any other."""
    file = tmp_path / "own/test_filler.py"
    file.parent.mkdir()
    file.write_text(f"import pytest\n\n\n@pytest.mark.parametrize('number', range({LEAST}))\ndef test_passes(number):\n    pass\n")
    return file


def machines_of(server):
    return [line for line in processes() if MACHINE in line and str(server.temporary) in line]


def test_one_kernels_shards_run_here_and_on_a_builder_at_once(tmp_path, net, host, options, filler):
    words = [*options, "--offline", "--slots=1", f"--builder={host.name}=1", str(filler)]
    with Session(tmp_path, BUSY, *words, prefix=within(net)) as session:
        eventually(lambda: session.pids(MACHINE) and machines_of(host), LONGEST, lambda: session.output,
                   lambda: session.process.poll() is not None)
        session.end()
    assert session.status == 0, session.output
    assert set(session.outcomes().values()) == {"passed"} and len(session.outcomes()) == LEAST + 3
    one_line(session.output, f"{KERNEL}: machines: 1 here, 1 on {host.name}")
    nothing_is_left(host)


def test_builder_that_is_lost_costs_the_test_that_ran_and_its_shard_goes_on_here(tmp_path, net, start, options, filler):
    gone = start()
    words = [*options, "--offline", "--slots=1", f"--builder={gone.name}", str(filler)]
    with Session(tmp_path, BUSY, *words, prefix=within(net)) as session:
        eventually(lambda: machines_of(gone), LONGEST, lambda: session.output, lambda: session.process.poll() is not None)
        gone.end()
        session.end()
    assert session.status == 0, session.output
    assert set(session.outcomes().values()) == {"passed"} and len(session.outcomes()) == LEAST + 3
    assert [test["attempts"] for test in session.tests().values() if test["attempts"]] in ([], [["lost"]])
    one_line(session.output, f"{KERNEL}: builder {gone.name} is lost: ")
    one_line(session.output, f"{KERNEL}: machines: 2 here, 1 on {gone.name}")


def test_builder_keeps_python_and_gets_it_anew_where_it_is_damaged(tmp_path_factory, net, host, start, options):
    """At first it is changed so that it notes its use, then so that it does not run. The saved states are those of the usual cache."""
    root = tmp_path_factory.mktemp("cache")
    (root / "states").symlink_to(default_root() / "states")

    def passes(server):
        words = [*options, "--offline", "-k", "passes", "--slots=0", f"--builder={server.name}=1"]
        session = run(tmp_path_factory.mktemp("session"), OUTCOMES, *words, prefix=within(net))
        return session.status == 0 and session.outcomes() == {"test_passes": "passed"}

    assert passes(host)                     # its machine has been booted from now on
    builder = start(root=root)
    assert passes(builder)
    [python] = root.glob("images/sent-python-*/python")
    used, intact = root / "used", python.read_text()
    python.write_text(intact.replace("exec ", f"echo >> {used}; exec ", 1))
    assert passes(builder) and used.exists() and python.read_text() == intact
    python.write_text("#!/bin/sh\nexit 1\n")
    assert passes(builder) and python.read_text() == intact


def test_kernel_that_does_not_start_on_a_builder_runs_here(tmp_path, net, start, options, filler):
    full = start(root="/proc/no-cache")
    words = [*options, "--offline", "--slots=1", f"--builder={full.name}=1", str(filler)]
    session = run(tmp_path, BUSY, *words, prefix=within(net))
    assert session.status == 0, session.output
    assert set(session.outcomes().values()) == {"passed"} and len(session.outcomes()) == LEAST + 3
    one_line(session.output, f"{KERNEL}: does not start on {full.name}: ", "/proc/no-cache")
    one_line(session.output, f"{KERNEL}: machines: 2 here, 1 on {full.name}")


def test_different_versions_of_qemu_are_noted(tmp_path):
    kernel = KernelRun("0", KERNEL, machines=[Events(tmp_path / name) for name in "abc"])
    for events, version in zip(kernel.machines, ["7.2.22", "7.2.22", "8.2.2"], strict=True):
        events.add(qemu=version)
    one_line("\n".join(kernel.notes()), "7.2.22 and 8.2.2")


@pytest.fixture
def session():
    """One with a kernel, to be run here or by a builder, and a host; no machine has started."""
    far = FarSession.__new__(FarSession)
    far.places = [Place(HERE, 1, "0"), Builder(Host.parse("builder"), 1), Place("host", 1, "1")]
    far.places[1].kernels = "0"
    far.wanted = [KernelRun("0", KERNEL), HostRun("1", "host")]
    far.sched = KernelScheduling([Shard("0", "0", ["f::test"]), Shard("1", "1", ["f::test"])], {})
    far.runs = {run.number: run for run in far.wanted}
    far.events, far.owners, far.misbehaved = {}, {}, {}
    far.shuttingdown = far.shouldstop = False
    far.launched = []
    far.start_machine = lambda shard, place: (far.launched.append(place.name), place.shards.update({shard.number: shard.kernel}))
    return far


def test_kernel_that_can_run_nowhere_is_given_up(session):
    """Its tests were to go on in another machine; meanwhile another kernel's machine found that the builder is lost."""
    here, builder, _host = session.places
    here.unfit["0"], builder.lost = "no space left", "builder lab is lost: Connection closed"
    session.start_machines()
    assert session.wanted[0].error == "no space left" and session.sched.unfinished == {"1"}
    assert session.launched == ["host"]


def test_builder_on_which_two_machines_have_ended_early_gets_no_more_of_the_kernel(session, tmp_path):
    """It is no verdict on the kernel, which has run nowhere yet."""
    here, builder, _host = session.places
    shard = session.sched.shards["0"]
    for number in range(2):
        assert builder.takes("0")
        node = Mock(**{"gateway.spec.kernel": "0", "gateway.spec.shard": "0"})
        shard.node, shard.place, builder.shards["0"] = node, builder, "0"
        session._active_nodes, session.events[node] = {node}, Events(tmp_path / f"events-{number}")
        session.events[node].add(end="lost", why="the launcher failed: Traceback")
        session.worker_errordown(node, None)
    assert not builder.takes("0") and here.takes("0")
    assert session.events[node].last("note")["note"] == "does not start on builder: the launcher failed: Traceback"
    session.start_machines()
    assert session.launched == ["here", "host"] and not session.wanted[0].error
