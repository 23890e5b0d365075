"""This machine's QEMU: which one it is, and what it can do."""
import functools
import os
import re
import select
import shutil
import subprocess
from pathlib import Path

from vm.process import DIES_WITH_PARENT

LONGEST_VALUE = 900                         # bytes in a file of options; QEMU cuts at 1023


class VMError(Exception):
    """The machine could not be started, saved or restored; one line gives the reason."""


def qemu() -> str:
    """The path of QEMU.  Raises VMError if it is not installed."""
    found = shutil.which("qemu-system-x86_64")
    if found is None:
        raise VMError("qemu-system-x86_64 is not installed (Debian package: qemu-system-x86)")
    return found


@functools.cache
def qemu_version() -> str:
    """The version that QEMU reports, such as `7.2.22`.  Raises VMError."""
    run = subprocess.run([qemu(), "--version"], capture_output=True, text=True)
    words = run.stdout.split()
    if run.returncode or "version" not in words:
        raise VMError(f"`{qemu()} --version` failed: {(run.stderr or run.stdout).strip()[:200]}")
    return words[words.index("version") + 1]


def kernel_line(line: str, directory: Path) -> list[str]:
    """The arguments for a kernel's command line, by a file in `directory` if it can hold it: every user of a machine sees QEMU's
    arguments, and on a builder the line has a path of the session's machine.  Raises OSError."""
    line = re.sub(r'"([^"\s]*)"', r"\1", line)          # only spaces need them
    if '"' in line or len(os.fsencode(line)) > LONGEST_VALUE or not line.isprintable():
        return ["-append", line]
    (directory / "line").write_text(f'[machine]\n  append = "{line}"\n')
    return ["-readconfig", str(directory / "line")]


def check_device(device: str) -> None:
    """Raises VMError if QEMU does not know the device."""
    known = subprocess.run([qemu(), "-device", "help"], capture_output=True, text=True).stdout
    if f'name "{device.split(",")[0]}"' not in known:
        raise VMError(f"--device {device}: QEMU has no such device (`qemu-system-x86_64 -device help` lists them)")


def kvm_trouble(device: str = "/dev/kvm", deadline: float = 8) -> str | None:
    """Why KVM cannot run a guest here, in a few words; None if it can.

    The device may exist and still abort or hang at the first instruction.  So the firmware of an empty machine must write to the
    debug port within `deadline` seconds of wall time.
    """
    if not os.access(device, os.R_OK | os.W_OK):
        return f"cannot open {device}"
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as output:
        command = [*DIES_WITH_PARENT, qemu(), "-accel", "kvm", "-M", "q35", "-nodefaults", "-display", "none",
                   "-chardev", f"file,id=debug,path=/dev/fd/{write}", "-device", "isa-debugcon,iobase=0x402,chardev=debug"]
        probe = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 pass_fds=[write], process_group=0)
        os.close(write)
        try:
            ready, _, _ = select.select([output], [], [], deadline)
            if not ready:
                return f"{device} does not run a guest within {deadline:g} s"
            return None if output.read(1) else f"{device} does not run a guest"
        finally:
            probe.kill()
            probe.wait()
