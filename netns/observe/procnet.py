"""The tables of /proc/net in the calling thread's network namespace: proc_net(5)."""

import os
import re

# /proc/net is the main thread's.
_DIRECTORY = "/proc/thread-self/net"
# Address and device of each ipv6_route line with RTF_LOCAL (1 << 31); its columns are hexadecimal and of fixed width.
_LOCAL_ROUTE = re.compile(rb"^(.{32}).{100}[89a-f].{7} +(\S+)$", re.MULTILINE)


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


def local_routes() -> list[tuple[bytes, bytes]]:
    """The IPv6 addresses whose packets the namespace receives, as 32 hexadecimal digits, each with its device.

    An address gets its local route, and answers neighbour solicitations, once addrconf_dad_work() has run, even without
    duplicate address detection.
    """
    return _LOCAL_ROUTE.findall(read("ipv6_route"))
