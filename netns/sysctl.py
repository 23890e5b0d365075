"""Sysctls that some kernels have for all namespaces together, and those of a host that are not as they would be by themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import MissingFeature
from .host import Host
from .namespace import NetworkNamespace

_NETWORK = Path("/proc/sys/net")


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


def differing(host: Host) -> dict[str, tuple[str, str]]:
    """The host's sysctls below net whose values are not those of a new namespace: name -> (value, a new one's value)."""
    with NetworkNamespace() as fresh:
        with fresh.entered():
            defaults = _read_all()
        with host.entered():
            values = _read_all()
    return {name: (value, defaults[name]) for name, value in values.items() if name in defaults and value != defaults[name]}


def _read_all() -> dict[str, str]:
    found = {}
    for file in _NETWORK.rglob("*"):
        try:
            found[".".join(file.relative_to(_NETWORK.parent).parts)] = file.read_text().strip()
        except OSError:                     # a directory, or a file that can only be written
            continue
    return found
