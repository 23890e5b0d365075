"""Tunnels between hosts.

Built with `ip link`, whose words for a tunnel are the ones that its documentation and every bug report use: ip-link(8).
"""

from netns.errors import CommandError, MissingFeature
from netns.hosts.host import Host
from netns.lacking import UnsupportedCommand

# The device that a tunnel module makes by itself, unless net.core.fb_tunnels_only_for_init_net forbids it: it takes what
# no other tunnel of its kind takes.
_FALLBACK = {"ipip": "tunl0", "ip6tnl": "ip6tnl0", "sit": "sit0"}


def add(
    host: Host, name: str, kind: str, *options: str, address: str | None = None, routes: tuple[str, ...] = ()
) -> None:
    """Make a tunnel device, up, with an address (with its prefix length) and routes into it.

    `options` are the words of ip-link(8) for this kind. Raises MissingFeature where the kernel does not have the kind.
    """
    commands = [" ".join(["link add name", name, "type", kind, *options]), f"link set dev {name} up"]
    commands += _address(name, address)
    commands += [f"route add {route} dev {name}" for route in routes]
    _run(host, kind, commands)


def fallback(host: Host, kind: str, address: str) -> None:
    """The kind's fallback device is up, with an address. Raises MissingFeature."""
    name = _FALLBACK[kind]
    try:
        # The module makes the device when it is loaded, in each namespace; this loads it, or makes one that does the same.
        _run(host, kind, [f"link add name {name} up type {kind}", *_address(name, address)])
    except CommandError as error:
        if "File exists" not in str(error):
            raise
        _run(host, kind, [f"link set dev {name} up", *_address(name, address)])


def _address(name: str, address: str | None) -> list[str]:
    # Without duplicate address detection: others that hold it may be meant to.
    return [f"address add {address} dev {name}" + (" nodad" if ":" in address else "")] if address else []


def _run(host: Host, kind: str, commands: list[str]) -> None:
    try:
        host.run(["ip", "-batch", "-"], stdin="\n".join(commands) + "\n")
    except UnsupportedCommand as error:
        raise MissingFeature(f"the kernel has no {kind} tunnels") from error
