"""A kernel that warns of itself; the test is content."""

from pathlib import Path


def test_is_there_when_the_kernel_warns():
    Path("/dev/kmsg").write_text("<4>WARNING: CPU: 0 PID: 1 at net/core/sock.c:1 of nothing\n")


def test_is_there_when_the_kernel_says_something():
    Path("/dev/kmsg").write_text("<4>something\n")


def test_is_there_when_registers_cannot_be():
    """As an interrupt right behind cmpxchg16b leaves them on an emulator that is wrong about its flags."""
    with open("/dev/kmsg", "w", buffering=1) as log:
        for line in ("WARNING: CPU: 0 PID: 1 at mm/slub.c:1 of nothing", "RIP: 0010:kmem_cache_free+0x12c/0x2f0",
                     "RSP: 0018:ffffc90000007d28 EFLAGS: 1dbe9342"):
            log.write(f"<4>{line}\n")


def test_is_there_when_the_machine_is_new():
    """After the one before."""
