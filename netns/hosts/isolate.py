"""Move this process into private namespaces, so that a test run cannot touch the machine and leaves nothing behind.

Nothing is named or mounted outside: when the last process of the run exits, for any reason, the kernel removes
everything.
"""

import errno
import os
from pathlib import Path

from netns import libc
from netns.errors import IsolationError

# Each of these may deny user namespaces to ordinary users; a kernel has only some of them.
_SETTINGS = {
    "kernel.unprivileged_userns_clone": "0",
    "kernel.apparmor_restrict_unprivileged_userns": "1",
    "user.max_user_namespaces": "0",
}


def enter() -> None:
    """Give the calling process its own network and mount namespaces, and a user namespace unless it is root.

    Call it before starting any thread (unshare(2) refuses a user namespace to a multithreaded process); children
    inherit it. /run becomes an empty private tmpfs, where iptables keeps its lock.

    Raises IsolationError, in one line, if the kernel forbids it.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        if uid == 0:
            libc.unshare(libc.CLONE_NEWNET | libc.CLONE_NEWNS)
        else:
            libc.unshare(libc.CLONE_NEWUSER | libc.CLONE_NEWNET | libc.CLONE_NEWNS)
            _become_root_inside(uid, gid)
        libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
        libc.mount("tmpfs", "/run", "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=0755")
    except OSError as error:
        raise IsolationError(_explain(error, uid)) from error


def _become_root_inside(uid: int, gid: int) -> None:
    # user_namespaces(7): an unprivileged process must deny setgroups(2) before it maps its gid.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _explain(error: OSError, uid: int) -> str:
    line = f"no private namespaces: {error.strerror or error}"
    if error.errno == errno.EINVAL:
        return f"{line}; this process has threads already, or the kernel lacks CONFIG_USER_NS or CONFIG_NET_NS"
    if uid == 0:
        return f"{line}; root lacks CAP_SYS_ADMIN here (a container?)"
    forbidding = [f"{name} is {value}" for name, value in _SETTINGS.items() if _read_setting(name) == value]
    return f"{line}; " + (" and ".join(forbidding) or f"run as root, or see {', '.join(_SETTINGS)}")


def _read_setting(name: str) -> str | None:
    try:
        return Path("/proc/sys", name.replace(".", "/")).read_text().strip()
    except OSError:
        return None
