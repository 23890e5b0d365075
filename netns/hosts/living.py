"""How many network namespaces there are that the kernel has not taken down to the end."""

import errno
import os

from netns.errors import MissingFeature
from netns.hosts.namespace import NetworkNamespace

_LIMIT = "/proc/sys/user/max_net_namespaces"


def at_most(count: int) -> bool:
    """Whether no more than so many are left, beside the initial one, of those made in this user namespace and below.

    One counts from unshare(2) until cleanup_net() is through with it: it has no device any more, and no timer, RCU callback or work
    of its own to come. The kernel shows this number nowhere, but compares it with a limit, so that one more namespace can be made
    or not; it goes at once. No other process may make any meanwhile. Source: inc_net_namespaces(), net/core/net_namespace.c; namespaces(7).

    Raises MissingFeature where there is no such limit, or it may not be set.
    """
    try:
        descriptor = os.open(_LIMIT, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MissingFeature(f"counting network namespaces: {error}") from error
    try:
        usual = os.pread(descriptor, 32, 0)
        os.pwrite(descriptor, b"%d" % (count + 1), 0)
        try:
            NetworkNamespace().close()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False
        finally:
            os.pwrite(descriptor, usual, 0)
    finally:
        os.close(descriptor)
    return True


def number(least: int = 0) -> int:
    """How many are left, from `least` on. Raises MissingFeature."""
    while not at_most(least):
        least += 1
    return least
