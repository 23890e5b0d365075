"""Other machines over ssh: hosts that run the tests, and builders that boot the kernels; what goes wrong there is one line."""

import os
import platform
import subprocess
from contextlib import ExitStack

import pytest

from kernels.vm import qemu
from tests.harness.sessions import KERNEL, OTHER, Session, eventually, one_line, run
from tests.harness.ssh_server import Server, network, within

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sshd needs root, to be in a network of its own")
OUTCOMES, BUSY = "test_outcomes.py", "test_busy.py"
USAGE, NOT_BOOTED = 2, 125


@pytest.fixture(scope="module")
def net():
    with network() as holder:
        yield holder


@pytest.fixture(scope="module")
def start(net, tmp_path_factory):
    """Starts servers, each with a temporary directory and a cache of its own, all with one key."""
    with ExitStack() as stack:
        def server(before=""):
            place = tmp_path_factory.mktemp("host")
            started = Server(place, net, 2200 + len(list(place.parent.glob("host*"))), place / "cache", before)
            stack.callback(started.end)
            return started
        yield server


@pytest.fixture(scope="module")
def host(start):
    return start()


def nothing_is_left(server):
    eventually(lambda: not server.leftovers(), 10, lambda: f"left behind: {server.leftovers()}")
    assert not [line for line in processes() if str(server.temporary) in line]


def processes():
    return subprocess.run(["ps", "-eo", "args", "--no-headers"], capture_output=True, text=True, check=True).stdout.splitlines()


def ssh(server, *options):
    return [f"--ssh={server.name}", f"--ssh-config={server.config}", *options]


def test_host_is_a_column_with_its_own_kernel(tmp_path, net, host):
    options = ssh(host, "-k", "passes or fails or skips or temporary")
    session = run(tmp_path, OUTCOMES, *options, kernels=[], prefix=within(net))
    assert session.status == 1
    assert session.outcomes(host.name) == {"test_passes": "passed", "test_has_a_temporary_directory": "passed", "test_fails": "failed",
                                           "test_fails_in_setup": "failed", "test_skips": "skipped"}
    (kernel,) = session.results["kernels"]
    assert (kernel["release"], kernel["clock"], kernel["qemu"]) == (platform.release(), "real", None)
    nothing_is_left(host)


def test_what_is_left_out_is_said_first(tmp_path, net, host):
    session = run(tmp_path, OUTCOMES, *ssh(host, "-k", "test_passes"), kernels=[], prefix=within(net))
    assert session.status == 0
    first = session.output.splitlines()[0]
    assert first.startswith(f"{host.name}: {platform.release()}, tests run in private namespaces; left out without --own-machine: the audit tests")


@pytest.mark.parametrize("options, status, reason", [
    (["--ssh=not@a@host"], USAGE, "'not@a@host' is not user@host or user@host:port"),
    (["--ssh=no-such-host.invalid"], NOT_BOOTED, "Could not resolve hostname"),
    (["--ssh=root@127.0.0.1:2100"], NOT_BOOTED, "Connection refused"),
    (["--builder=root@127.0.0.1:2100", f"--kernel={KERNEL}"], USAGE, "Connection refused"),
    (["--builder=root@127.0.0.1:2100"], USAGE, "none is given"),
], ids=["name", "host", "port", "builder", "builder without kernel"])
def test_what_cannot_be_reached_is_one_line(tmp_path, net, options, status, reason):
    session = run(tmp_path, OUTCOMES, *options, kernels=[], prefix=within(net))
    assert session.status == status
    one_line(session.output.partition("- tests by kernels -")[0], reason)


def test_refused_key_is_one_line(tmp_path, net, host, start):
    stranger = start()
    options = [f"--ssh={host.name}", f"--ssh-config={stranger.config}"]
    session = run(tmp_path, OUTCOMES, *options, kernels=[], prefix=within(net))
    assert session.status == NOT_BOOTED
    one_line(session.output.partition("- tests by kernels -")[0], "Permission denied (publickey")


def test_host_without_namespaces_says_so(tmp_path, net, start):
    """Root without CAP_SYS_ADMIN, as in a container."""
    bare = start("setpriv --bounding-set -sys_admin --inh-caps -sys_admin")
    session = run(tmp_path, OUTCOMES, *ssh(bare), kernels=[], prefix=within(net))
    assert session.status == NOT_BOOTED
    assert "no private namespaces: unshare: Operation not permitted; root lacks CAP_SYS_ADMIN here" in session.results["kernels"][0]["error"]
    nothing_is_left(bare)


def test_lost_connection_costs_the_test_that_ran(tmp_path, net, host):
    """It is run once more over a new connection, and the old one's directory and processes are gone."""
    with Session(tmp_path, BUSY, *ssh(host, "-v"), kernels=[], prefix=within(net)) as session:
        session.wait_for("test_before")
        subprocess.run(["kill", str(session.wait_for_process("machines.far"))], check=True)
        session.end()
    assert session.outcomes(host.name) == {"test_before": "passed", "test_is_busy": "passed", "test_after": "passed"}
    assert session.tests(host.name)["test_is_busy"]["attempts"] == ["lost"]
    nothing_is_left(host)


def test_session_that_is_killed_leaves_nothing_there(tmp_path, net, host):
    with Session(tmp_path, BUSY, *ssh(host, "-v"), kernels=[], prefix=within(net)) as session:
        session.wait_for("test_before")
        session.process.kill()
        session.process.wait()
        nothing_is_left(host)


def test_builder_that_dies_costs_only_what_ran_there(tmp_path, net, start):
    """Two kernels on two builders; the one that ends takes its kernel's test along, which is run once more on the other."""
    assert qemu()
    builders = [start(), start()]
    (builders[0].config.parent / "key.pub").write_text("".join((each.place / "key.pub").read_text() for each in builders))
    builders[1].config.with_name("key.pub").write_text((builders[0].place / "key.pub").read_text())
    options = ["-v", *(f"--builder={each.name}" for each in builders), f"--ssh-config={builders[0].config}"]
    with Session(tmp_path, BUSY, *options, kernels=[KERNEL, OTHER], prefix=within(net), KDRIFT_OFFLINE="1") as session:
        session.wait_for(f"{KERNEL}  passed   {'tests/harness/cases/test_busy.py'}::test_before")
        builders[0].end()
        session.end()
    passed = {"test_before": "passed", "test_is_busy": "passed", "test_after": "passed"}
    assert session.outcomes(KERNEL) == session.outcomes(OTHER) == passed
    assert session.tests(KERNEL)["test_is_busy"]["attempts"] == ["lost"]
    assert session.tests(OTHER)["test_is_busy"]["attempts"] == []
    nothing_is_left(builders[1])
