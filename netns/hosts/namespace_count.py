"""The number of network namespaces that the kernel has not fully destroyed."""

import errno
import os

from netns.errors import MissingFeature
from netns.hosts.namespace import NetworkNamespace

_LIMIT = "/proc/sys/user/max_net_namespaces"


def at_most(count: int) -> bool:
    """Whether at most `count` namespaces are left, besides the initial one, of those created in this user namespace and below.

    One counts from unshare(2) until cleanup_net() has finished: then it has no device, and none of its timers, RCU callbacks and
    work items is pending. The kernel does not export the number but checks it against a limit, so this sets the limit and tries
    to create one more, which the next host gets. No other process may create any meanwhile.
    Source: inc_net_namespaces(), net/core/net_namespace.c; namespaces(7).

    Raises MissingFeature if there is no such limit or it cannot be set.
    """
    try:
        descriptor = os.open(_LIMIT, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MissingFeature(f"cannot count network namespaces: {error}") from error
    try:
        usual = os.pread(descriptor, 32, 0)
        os.pwrite(descriptor, b"%d" % (count + 1), 0)
        try:
            NetworkNamespace.make_next()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False
        finally:
            os.pwrite(descriptor, usual, 0)
    finally:
        os.close(descriptor)
    return True


def current(least: int = 0) -> int:
    """The number that is left, searched from `least` up. Raises MissingFeature."""
    while not at_most(least):
        least += 1
    return least
