"""--ssh and --builder with a machine that is really another one: a guest with a kernel of its own, its sshd and QEMU, and nothing else."""

import lzma
import os
import shutil
import subprocess
from glob import glob
from pathlib import Path

import pytest

from kernels.cache import Cache
from kernels.spec import resolve
from tests.harness import sessions
from tests.harness.sessions import KERNEL, Session, eventually, one_line, run
from tests.harness.ssh_server import Server, network, sshd_program, within, write_keys, write_server
from vm.image import boot_image, cpio, libraries, python_command, tool, with_links
from vm.machine import WITHOUT
from vm.process import DIES_WITH_PARENT
from vm.qemu import qemu

pytestmark = [pytest.mark.timeout(1800), pytest.mark.skipif(os.geteuid() != 0, reason="needs a network of its own")]
MODULES = ["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"]       # each needs those before it
TOOLS = ["uname", "nproc", "mktemp", "head", "tar", "gzip", "rm", "mkdir", "id", "sleep"]
QEMU_FILES = ["/usr/lib/*/qemu/accel-tcg-x86_64.so", "/usr/share/qemu/*.bin", "/usr/share/seabios/bios*.bin"]
INIT = Path(__file__).parents[1] / "guest_server.py"
PORT = 2300
NAME = f"root@127.0.0.1:{PORT}"
PATIENCE = 1200                             # seconds: on the builder a machine is emulated by one that is emulated


@pytest.fixture(scope="module")
def net():
    with network() as holder:
        yield holder


@pytest.fixture(scope="module")
def guest(net, tmp_path_factory):
    """The guest's process, its files (the client's among them), and the release that it runs."""
    place = tmp_path_factory.mktemp("guest")
    with Cache() as cache:
        kernel = resolve(KERNEL, cache)
        write_keys(place, PORT)
        write_server(place, place, 22, "TMPDIR=/target KDRIFT_CACHE=/cache", listen="0.0.0.0")
        initrd = with_sshd(boot_image(cache, kernel), kernel, place)
        sshd, path = sshd_program()
        words = f"console=ttyS0 rdinit={python_command()} -- {place}/init.py {place} {sshd} {path}"
        command = [*DIES_WITH_PARENT, *within(net), qemu(), "-M", "q35", "-m", "4096", "-accel", "tcg,tb-size=512",
                   "-cpu", f"max,{WITHOUT}", "-nodefaults", "-display", "none", "-no-reboot", "-kernel", kernel.vmlinuz,
                   "-initrd", initrd, "-append", words, "-serial", f"file:{place}/console",
                   "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{PORT}-:22", "-device", "virtio-net-pci,netdev=net"]
        process = subprocess.Popen(command)
        try:
            console = place / "console"
            eventually(lambda: console.exists() and "Server listening" in console.read_text(errors="replace"), 180,
                       lambda: console.read_text(errors="replace"), lambda: process.poll() is not None)
            yield process, place, kernel.release
        finally:
            process.kill()
            process.wait()


def with_sshd(initrd, kernel, place):
    """The boot image with a second archive behind it: sshd, its files, the network's driver, QEMU and what a shell needs to unpack."""
    (place / "modules").mkdir()
    for number, name in enumerate(MODULES):
        for module in (kernel.modules / "kernel").glob(f"{name}.ko*"):
            data = module.read_bytes()
            (place / f"modules/{number}").write_bytes(lzma.decompress(data) if module.suffix == ".xz" else data)
    shutil.copy(INIT, place / "init.py")
    sshd, path = sshd_program()
    programs = [sshd, qemu(), *map(tool, TOOLS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", path)
        files = [*programs, *libraries(programs), *(found for pattern in QEMU_FILES for found in glob(pattern)),
                 *(str(file) for file in place.rglob("*") if file.is_file())]
    extra = place / "extra"
    cpio(extra, Path("/"), with_links(files))
    whole = place / "initrd"
    whole.write_bytes(initrd.read_bytes() + extra.read_bytes())
    return whole


def test_tests_run_on_the_other_machines_kernel(tmp_path, net, guest):
    """With --own-machine also those that change the whole machine: an audit daemon is registered there."""
    _process, place, release = guest
    options = [f"--ssh={NAME}", f"--ssh-config={place}/client", "--own-machine", "tests/audit/test_registration.py",
               "-k", "passes or temporary or gets_the_records"]
    session = run(tmp_path, "test_outcomes.py", *options, kernels=[], prefix=within(net))
    assert session.status == 0
    assert session.outcomes(NAME) == {"test_passes": "passed", "test_has_a_temporary_directory": "passed",
                                      "test_the_registered_daemon_gets_the_records": "passed"}
    assert session.results["kernels"][0]["release"] == release
    look = [*within(net), "ssh", "-F", place / "client", "-p", str(PORT), "127.0.0.1", "echo /target/*"]
    left = subprocess.run(look, capture_output=True, text=True)
    assert left.stdout == "/target/*\n", left


def test_builder_that_is_switched_off_costs_only_its_kernels_results(tmp_path, net, guest, tmp_path_factory, monkeypatch):
    """Two kernels on two builders; the test that ran on the one is lost, and run once more on the other.  The guest is gone after this."""
    process, place, _release = guest
    monkeypatch.setattr(sessions, "LONGEST", PATIENCE)
    with Cache() as cache, Server(tmp_path_factory.mktemp("other"), place, net, PORT + 1, cache.root) as other:
        words = ["-v", "--offline", "--slots=0", "--fresh", f"--deadline={PATIENCE}", f"--ssh-config={place}/client",
                 f"--builder={NAME}", f"--builder={other.name}"]
        with Session(tmp_path, "test_busy.py", *words, kernels=[KERNEL, KERNEL], prefix=within(net)) as session:
            session.wait_for(f"{KERNEL}  passed   tests/harness/cases/test_busy.py::test_before")
            process.kill()
            session.end()
    second = f"{KERNEL} (2)"
    assert session.status == 0
    assert session.outcomes(KERNEL) == session.outcomes(second) == {"test_before": "passed", "test_is_busy": "passed",
                                                                    "test_after": "passed"}
    assert session.tests(KERNEL)["test_is_busy"]["attempts"] == ["lost"]
    assert session.tests(second)["test_is_busy"]["attempts"] == []
    one_line(session.output, f"{KERNEL}: machines: 1 on {NAME}, 1 on {other.name}")
    one_line(session.output, f"{second}: machines: 1 on {other.name}")
