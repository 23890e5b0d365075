"""Process 1 of a machine for tests: a guest of the suite's own making in which sshd runs instead of a worker.

Started with the place of sshd's files and its program; the boot image has all of it, see whole/test_ssh_guest.py.
"""
import ctypes
import os
import runpy
import subprocess
import sys
from pathlib import Path


def load(module: Path) -> None:
    with module.open("rb") as file:
        if ctypes.CDLL(None, use_errno=True).syscall(313, file.fileno(), b"", 0):      # finit_module(2)
            raise OSError(ctypes.get_errno(), str(module))


def main(place: str, sshd: str, libraries: str) -> None:
    runpy.run_path("/kdrift-init.py")["prepare_system"]()
    subprocess.run(["/sbin/modprobe", "-a", "virtio_pci"], check=True)
    for module in sorted(Path(place, "modules").iterdir()):
        load(module)
    for words in ("link set lo up", "address add 10.0.2.15/24 dev eth0", "link set eth0 up"):       # QEMU's user network
        subprocess.run(["/bin/ip", *words.split()], check=True)
    for directory in ("/run/sshd", "/tmp", "/target"):
        os.makedirs(directory, exist_ok=True)
    with open("/etc/passwd", "a") as users:
        users.write("sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")
    os.execve(sshd, [sshd, "-D", "-e", "-f", f"{place}/server"], {"LD_LIBRARY_PATH": libraries, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


if __name__ == "__main__":
    main(*sys.argv[1:])
