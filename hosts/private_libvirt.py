"""`python -m hosts.private_libvirt COMMAND...`: run a command with its own libvirtd, in private namespaces.

Network, mounts and processes are private: nobody else sees the bridges, addresses and machines that Vagrant makes, and the kernel
removes all of it when the command ends, however it ends.  Needs root.  Files are in a temporary directory, in $TMPDIR.
"""
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vm.process import DIES_WITH_PARENT

# Without what a short-lived machine does not need, and what containers lack.
QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
LIBVIRTD_CONF = 'auth_unix_rw = "none"\n'
DEVICES = ["null", "zero", "full", "random", "urandom", "tty", "net/tun"]
PRIVATE = ["var/lib/libvirt", "var/cache/libvirt", "var/log/libvirt", "etc/libvirt"]
READY = 30                                  # seconds until libvirtd answers


def main(command: list[str]) -> int:
    if os.geteuid():
        print("hosts.private_libvirt: needs root, for namespaces in which libvirt can make bridges", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="sealed-") as directory, mount_points():
        inside = [sys.executable, "-m", "hosts.private_libvirt", "--inside", directory, *command]
        namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return subprocess.run([*DIES_WITH_PARENT, *namespaces, *inside]).returncode


@contextmanager
def mount_points() -> Iterator[None]:
    """libvirt's directories as mount points; missing ones are created empty, and removed again."""
    made = [path for place in PRIVATE if not (path := Path("/", place)).exists()]
    for path in made:
        path.mkdir()
    try:
        yield
    finally:
        for path in made:
            path.rmdir()


def inside(directory: Path, command: list[str]) -> int:
    """In the namespaces: mounts, libvirtd, the command.  Returns an exit status."""
    hide_kvm(directory / "dev")
    for place in PRIVATE:
        (directory / place).mkdir(parents=True)
        run("mount", "--bind", directory / place, f"/{place}")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    Path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF)
    Path("/etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF)
    run("ip", "link", "set", "lo", "up")
    with open(directory / "libvirtd.log", "wb") as log:
        daemon = subprocess.Popen(["libvirtd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    deadline = time.monotonic() + READY
    while not os.path.exists("/run/libvirt/libvirt-sock"):
        if daemon.poll() is not None or time.monotonic() > deadline:
            print(f"hosts.private_libvirt: libvirtd does not start:\n{(directory / 'libvirtd.log').read_text()}", file=sys.stderr)
            return 3
        time.sleep(0.1)
    environment = {**os.environ, "VAGRANT_HOME": str(directory / "vagrant"), "VAGRANT_DOTFILE_PATH": str(directory / "dot"),
                   "VAGRANT_DEFAULT_PROVIDER": "libvirt", "VAGRANT_CHECKPOINT_DISABLE": "1", "KDRIFT_DRIVER": "qemu"}
    process = subprocess.Popen(command, env=environment)
    while True:                             # process 1 must reap: libvirt waits a minute for a machine that has ended and was not reaped
        pid, status = os.wait()
        if pid == process.pid:
            return os.waitstatus_to_exitcode(status)


def hide_kvm(place: Path) -> None:
    """A /dev without kvm: where kvm is present but broken, each libvirt call takes seconds to find out."""
    place.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", place)
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).touch()
            run("mount", "--bind", f"/dev/{name}", place / name)
    for name in ("pts", "shm"):
        (place / name).mkdir()
    run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", place / "pts")
    (place / "ptmx").symlink_to("pts/ptmx")
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (place / name).symlink_to(f"/proc/self/{target}")
    run("mount", "--rbind", place, "/dev")


def run(*words: str | Path) -> None:
    if status := subprocess.run([str(word) for word in words]).returncode:
        sys.exit(f"hosts.private_libvirt: {words[0]} failed with status {status}, for the reason above")


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        sys.exit(inside(Path(sys.argv[2]), sys.argv[3:]))
    sys.exit(main(sys.argv[1:]))
