"""Other machines over ssh: hosts that run the tests, and builders that boot the kernels; what goes wrong there is one line."""

import itertools
import os
import platform
import subprocess
from contextlib import ExitStack

import pytest

from hosts.session import Builder, FarSession
from hosts.ssh import Host
from kernels.cache import Cache
from kernels.spec import resolve
from session.runs import KernelRun
from session.scheduler import KernelScheduling, Shard
from tests.harness.sessions import KERNEL, Session, eventually, one_line, run
from tests.harness.ssh_server import Server, network, within, write_keys
from vm.job import Events

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sshd needs root, to be in a network of its own")
OUTCOMES, BUSY = "test_outcomes.py", "test_busy.py"
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
        def server(before=""):
            return stack.enter_context(Server(tmp_path_factory.mktemp("host"), keys, net, next(ports), cache.root, before))
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
    return subprocess.run(["ps", "-eo", "args", "--no-headers"], capture_output=True, text=True, check=True).stdout.splitlines()


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
    (["--ssh=refused", "--shell"], USAGE, "--shell cannot be combined with --ssh, --builder or --vagrant"),
], ids=["host", "name", "builder", "builder without kernel", "shell"])
def test_what_cannot_start_has_its_exit_status(tmp_path, net, host, options, words, status, reason):
    session = run(tmp_path, OUTCOMES, *options, *words, kernels=[], prefix=within(net))
    assert session.status == status
    one_line(session.output.partition("- kernels -")[0], reason)


def test_lost_connection_costs_the_test_that_ran(tmp_path, net, host, options):
    """It is run once more over a new connection, and the old one's directory and processes are gone."""
    with Session(tmp_path, BUSY, *options, f"--ssh={host.name}", "-v", kernels=[], prefix=within(net)) as session:
        session.wait_for("test_before")
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
    """What becomes of its kernels when it dies is in whole/test_ssh_guest.py."""
    with Cache() as cache:
        release = resolve(KERNEL, cache).release            # the session's network has no mirror
    session = run(tmp_path, OUTCOMES, *options, "--offline", "-k", "passes", f"--builder={host.name}", prefix=within(net))
    assert (session.status, session.outcomes(), session.releases) == (0, {"test_passes": "passed"}, {KERNEL: release})
    one_line(session.output, f"{KERNEL}: runs on {host.name}")
    assert session.results["kernels"][0]["qemu"]
    nothing_is_left(host)


def test_kernel_whose_machine_did_not_fail_is_given_up_when_no_builder_is_left(tmp_path):
    """Its tests were to go on in another machine; meanwhile another kernel's machine found that the builder is lost."""
    session = FarSession.__new__(FarSession)
    session.builders, session.last_lost = [Builder(Host.parse("builder"), 1, alive=False)], "Connection closed"
    session.sched = KernelScheduling([Shard("0", "0", ["f::test"])], {})
    session.shuttingdown = session.shouldstop = False
    kernel = KernelRun("0", KERNEL, machines=[Events(tmp_path / "events")])
    session.wanted = [kernel]
    session.start_machines()
    assert kernel.error == "no builder is left: Connection closed" and session.sched.tests_finished
