"""Sysctls that some kernels share between all namespaces, and a host's sysctls that differ from the defaults."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from netns.errors import MissingFeature, MissingOnHost, missing_feature
from netns.hosts.host import Host
from netns.hosts.namespace import NetworkNamespace

_NETWORK = "/proc/sys/net"
_LONGEST = 1 << 16


@contextmanager
def global_sysctl(name: str, value: int) -> Iterator[None]:
    """Within the block the sysctl has this value, for all namespaces. Raises MissingFeature if this process may not
    write it."""
    file = Path("/proc/sys", name.replace(".", "/"))
    NetworkNamespace.forget_next()          # a namespace may copy the value when it is made
    try:
        before = file.read_text()
        file.write_text(str(value))
    except OSError as error:
        raise missing_feature(f"cannot write {name}, which all namespaces share on this kernel", error) from error
    try:
        yield
    finally:
        file.write_text(before)


def missing_sysctl(name: str) -> MissingFeature:
    """The error for a missing sysctl that the kernel hides from user namespaces: MissingOnHost inside one of those.

    Source: net/xfrm/xfrm_sysctl.c and net/netfilter/nf_conntrack_standalone.c, "Don't export sysctls to unprivileged users".
    """
    if Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]:
        return MissingFeature(f"the kernel has no sysctl {name}")
    return MissingOnHost(f"no sysctl {name}: the kernel lacks it, or hides it outside the initial user namespace")


def defaults() -> dict[str, str]:
    """The net sysctls of a new namespace: name -> value."""
    with NetworkNamespace() as fresh, fresh.entered():
        files = (f"{directory}/{name}" for directory, _directories, names in os.walk(_NETWORK) for name in names)
        return read(file.removeprefix("/proc/sys/").replace("/", ".") for file in files)


def differing(host: Host, usual: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The host's sysctls that differ from the `usual` ones of defaults(): name -> (value, default)."""
    with host.entered():
        values = read(usual)
    return {name: (value, usual[name]) for name, value in values.items() if value != usual[name]}


def read(names: Iterable[str]) -> dict[str, str]:
    """The values of those sysctls of this thread's namespace that can be read: name -> value."""
    found = {}
    for name in names:
        with suppress(OSError):             # write-only, or absent here
            descriptor = os.open(f"/proc/sys/{name.replace('.', '/')}", os.O_RDONLY)
            try:
                found[name] = os.read(descriptor, _LONGEST).decode().strip()
            finally:
                os.close(descriptor)
    return found
