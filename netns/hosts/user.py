"""Become another user in a process of one's own: with fewer capabilities, or with all of them in a new user namespace.

Source: capabilities(7), user_namespaces(7).
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from netns import libc
from netns.errors import MissingOnHost

CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_AUDIT_WRITE": 29,
                "CAP_AUDIT_CONTROL": 30, "CAP_AUDIT_READ": 37}
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 4, 8


@dataclass(frozen=True)
class User:
    """A user and group of this number, who has the named capabilities, or with `but` all except those. In a user namespace of its own
    it is root, and its capabilities are there; with `network` it also has a network namespace."""

    number: int = 0
    capabilities: Collection[str] = ()
    but: bool = False
    namespace: bool = False
    network: bool = False

    def become(self) -> None:
        """Give these credentials to the calling process, which must be single-threaded. Raises MissingOnHost without the right to."""
        try:
            os.setgroups([])
            libc.prctl(_PR_SET_KEEPCAPS, 1)
            os.setresgid(self.number, self.number, self.number)
            os.setresuid(self.number, self.number, self.number)
        except PermissionError as error:
            raise MissingOnHost(f"cannot become user {self.number}: {error.strerror}") from error
        libc.prctl(_PR_SET_DUMPABLE, 1)     # without it /proc/self stays root's
        if self.namespace:
            libc.unshare(libc.CLONE_NEWUSER | (libc.CLONE_NEWNET if self.network else 0))
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {self.number} 1")
            Path("/proc/self/gid_map").write_text(f"0 {self.number} 1")
        named = sum(1 << CAPABILITIES[name] for name in self.capabilities)
        libc.capset(_permitted() & ~named if self.but else named)


def _permitted() -> int:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["CapPrm"], 16)
