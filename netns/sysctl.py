"""Sysctls that some kernels have for all namespaces together, and those of a host that are not as they would be by themselves."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .errors import MissingFeature
from .host import Host
from .namespace import NetworkNamespace

_NETWORK = "/proc/sys/net"


@contextmanager
def everywhere(name: str, value: int) -> Iterator[None]:
    """The sysctl has this value for the time of the block. Raises MissingFeature where this process may not write
    it."""
    file = Path("/proc/sys", name.replace(".", "/"))
    try:
        before = file.read_text()
        file.write_text(str(value))
    except OSError as error:
        raise MissingFeature(f"{name} is not of the network namespace here, and cannot be written: {error}") from error
    try:
        yield
    finally:
        file.write_text(before)


def defaults() -> dict[str, str]:
    """The sysctls below net of a new namespace."""
    with NetworkNamespace() as fresh, fresh.entered():
        return _read_all()


def differing(host: Host, usual: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The host's sysctls below net whose values are not the `usual` ones of defaults(): name -> (value, default)."""
    with host.entered():
        values = _read_all()
    return {name: (value, usual[name]) for name, value in values.items() if name in usual and value != usual[name]}


def _read_all() -> dict[str, str]:
    found = {}
    for directory, _directories, files in os.walk(_NETWORK):
        group = directory.removeprefix("/proc/sys/").replace("/", ".")
        for name in files:
            try:
                with open(f"{directory}/{name}", "rb", buffering=0) as file:
                    found[f"{group}.{name}"] = file.read().decode().strip()
            except OSError:                 # it can only be written, or not here
                continue
    return found
