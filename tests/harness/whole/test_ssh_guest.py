"""--ssh with a machine that is really another one: a guest with a kernel of its own, its sshd and nothing else."""

import lzma
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kernels.cache import Cache
from kernels.image import boot_image, cpio, libraries, python_command, tool, with_links
from kernels.process import dies_with_parent
from kernels.spec import resolve
from kernels.vm import qemu
from tests.harness.sessions import KERNEL, eventually, run
from tests.harness.ssh_server import network, sshd_program, within, write_keys, write_server

pytestmark = [pytest.mark.timeout(900), pytest.mark.skipif(os.geteuid() != 0, reason="needs a network of its own")]
MODULES = ["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"]       # each needs those before it
TOOLS = ["uname", "nproc", "mktemp", "head", "tar", "gzip", "rm", "mkdir", "id", "sleep"]
INIT = Path(__file__).parents[1] / "guest_server.py"
PORT = 2300


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    """The process that holds the guest's network, the client's files, and the release that the guest runs."""
    place = tmp_path_factory.mktemp("guest")
    with Cache() as cache, network() as net:
        kernel = resolve(KERNEL, cache)
        write_keys(place, PORT)
        write_server(place, place, 22, "TMPDIR=/target", listen="0.0.0.0")
        initrd = with_sshd(boot_image(cache, kernel), kernel, place)
        sshd, path = sshd_program()
        words = f"console=ttyS0 rdinit={python_command()} -- {place}/init.py {place} {sshd} {path}"
        command = [*within(net), qemu(), "-M", "q35", "-m", "1024", "-accel", "tcg,tb-size=256", "-cpu", "max",
                   "-nodefaults", "-display", "none", "-no-reboot", "-kernel", kernel.vmlinuz, "-initrd", initrd, "-append", words, "-serial", f"file:{place}/console",
                   "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{PORT}-:22", "-device", "virtio-net-pci,netdev=net"]
        process = subprocess.Popen(command, preexec_fn=dies_with_parent)
        try:
            console = place / "console"
            eventually(lambda: console.exists() and "Server listening" in console.read_text(errors="replace"), 180,
                       lambda: console.read_text(errors="replace"), lambda: process.poll() is not None)
            yield net, place, kernel.release
        finally:
            process.kill()
            process.wait()


def with_sshd(initrd, kernel, place):
    """The boot image with a second archive behind it: sshd, its files, the network's driver and what a shell needs to unpack."""
    (place / "modules").mkdir()
    for number, name in enumerate(MODULES):
        for module in (kernel.modules / "kernel").glob(f"{name}.ko*"):
            data = module.read_bytes()
            (place / f"modules/{number}").write_bytes(lzma.decompress(data) if module.suffix == ".xz" else data)
    shutil.copy(INIT, place / "init.py")
    sshd, path = sshd_program()
    programs = [sshd, *map(tool, TOOLS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", path)
        files = [*programs, *libraries(programs), *(str(file) for file in place.rglob("*") if file.is_file())]
    extra = place / "extra"
    cpio(extra, Path("/"), with_links(files))
    whole = place / "initrd"
    whole.write_bytes(initrd.read_bytes() + extra.read_bytes())
    return whole


def test_tests_run_on_the_other_machines_kernel(tmp_path, guest):
    """With --own-machine also those that change the whole machine: an audit daemon is registered there."""
    net, place, release = guest
    name = f"root@127.0.0.1:{PORT}"
    options = [f"--ssh={name}", f"--ssh-config={place}/client", "--own-machine", "tests/audit/test_registration.py",
               "-k", "passes or temporary or gets_the_records"]
    session = run(tmp_path, "test_outcomes.py", *options, kernels=[], prefix=within(net))
    assert session.status == 0
    assert session.outcomes(name) == {"test_passes": "passed", "test_has_a_temporary_directory": "passed",
                                      "test_the_registered_daemon_gets_the_records": "passed"}
    assert session.results["kernels"][0]["release"] == release
    look = [*within(net), "ssh", "-F", place / "client", "-p", str(PORT), "127.0.0.1", "echo /target/*"]
    left = subprocess.run(look, capture_output=True, text=True)
    assert left.stdout == "/target/*\n", left
