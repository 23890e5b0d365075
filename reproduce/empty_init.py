#!/usr/bin/python3
"""Process 1 of an empty machine: mounts, runs /root/repro.pyz with its output on the second serial port, ends the machine."""
import ctypes
import os
import subprocess
import sys

libc = ctypes.CDLL(None)
for kind, place in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp"),
                    ("tracefs", "/sys/kernel/tracing"), ("bpf", "/sys/fs/bpf")):
    if os.path.isdir(place):
        libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None)
# As every init does: without them `nft -f /dev/stdin` finds nothing, and what is written to /dev/stdout becomes a file there.
for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
    if not os.path.lexists("/dev/" + name):
        os.symlink("/proc/self/fd" + target, "/dev/" + name)
os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root", LANG="C.UTF-8")
with open("/root/options") as file:
    words = file.read().split()
with open("/dev/ttyS1", "wb", buffering=0) as port:
    sys.path.insert(0, "/root")
    from processor import probe  # type: ignore[import-not-found]  # vm/processor.py, which is beside this file in the machine

    wrong = probe()
    if wrong:
        port.write(("CANNOT RUN: QEMU executes %s wrongly: EFLAGS is %#x, expected %#x\n" % wrong).encode())
    else:
        subprocess.run(["python3", "repro.pyz", *words], cwd="/root", stdin=subprocess.DEVNULL, stdout=port, stderr=port)
    libc.tcdrain(port.fileno())             # until the last character is out
libc.reboot(0x01234567)
