"""The tables of /proc/net in the calling thread's network namespace: proc_net(5)."""

import os

# /proc/net is the main thread's.
_DIRECTORY = "/proc/thread-self/net"


def read(name: str) -> bytes:
    """A table's text. Raises FileNotFoundError.

    Without pathlib and text layers, which take longer than the kernel: tests read thousands of tables.
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
    """The words of each line of a table, without the heading."""
    return [line.split() for line in read(name).decode().splitlines()[1:]]
