"""The tables of /proc/net, of the network namespace that the calling thread is in: proc_net(5)."""

import os

# /proc/net is the main thread's.
_DIRECTORY = "/proc/thread-self/net"


def read(name: str) -> bytes:
    """A table's text. Raises FileNotFoundError.

    Without pathlib and text layers, which take longer than the kernel: tests look at thousands of them.
    """
    descriptor = os.open(f"{_DIRECTORY}/{name}", os.O_RDONLY)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def rows(name: str) -> list[list[str]]:
    """The words of each line of a table but the first, its heading."""
    return [line.split() for line in read(name).decode().splitlines()[1:]]
