"""Tunnels between hosts.

Built with `ip link`, whose terms are those of the documentation and of every bug report: ip-link(8).
"""

from netns.errors import CommandError, MissingFeature
from netns.hosts.host import Host
from netns.unsupported import UnsupportedCommand

# The device that a tunnel module creates, unless net.core.fb_tunnels_only_for_init_net forbids it: it receives what
# matches no other tunnel of its kind.
_FALLBACK = {"ipip": "tunl0", "ip6tnl": "ip6tnl0", "sit": "sit0"}


def add(
    host: Host, name: str, kind: str, *options: str, address: str | None = None, routes: tuple[str, ...] = ()
) -> None:
    """Create a tunnel device, set it up, and add an address (with its prefix length) and routes through it.

    `options` are the arguments of ip-link(8) for this kind. Raises MissingFeature if the kernel lacks the kind.
    """
    commands = [" ".join(["link add name", name, "type", kind, *options]), f"link set dev {name} up"]
    commands += _address(name, address)
    commands += [f"route add {route} dev {name}" for route in routes]
    _run(host, kind, commands)
    if address:
        host.await_address(address)


def fallback(host: Host, kind: str, address: str) -> None:
    """Set the kind's fallback device up, with an address. Raises MissingFeature."""
    name = _FALLBACK[kind]
    try:
        # The module creates the device in each namespace when it is loaded. This loads it, or creates an equivalent device.
        _run(host, kind, [f"link add name {name} up type {kind}", *_address(name, address)])
    except CommandError as error:
        if "File exists" not in str(error):
            raise
        _run(host, kind, [f"link set dev {name} up", *_address(name, address)])
    host.await_address(address)


def _address(name: str, address: str | None) -> list[str]:
    # No duplicate address detection: other hosts may hold the same address on purpose.
    return [f"address add {address} dev {name}" + (" nodad" if ":" in address else "")] if address else []


def _run(host: Host, kind: str, commands: list[str]) -> None:
    try:
        host.run(["ip", "-batch", "-"], stdin="\n".join(commands) + "\n")
    except UnsupportedCommand as error:
        raise MissingFeature(f"the kernel has no {kind} tunnels") from error
