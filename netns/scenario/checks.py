"""What no kernel may do, whatever a scenario asks for: checked in the guest, where the hosts still are."""

from netns.errors import ExpectationFailed, MissingFeature
from netns.hosts import namespace_count
from netns.hosts.namespace import NetworkNamespace
from netns.hosts.topology import Network
from netns.observe import accounting
from netns.observe.bystander import Bystander
from netns.wait import eventually

_LONGEST = 60.0                             # seconds until a namespace is gone
_EVERY = 0.1


def violations(network: Network, bystander: Bystander) -> list[tuple[str, str]]:
    """What a scenario has left wrong: where, and what. Packets are not counted as they were sent and received; the `bystander`, in whose
    namespace nothing happens, was notified."""
    found = [(f"packets of {role}", fault) for role, host in network.hosts.items() for fault in accounting.faults(host)]
    return found + [("another namespace", f"is told {heard}") for heard in dict.fromkeys(bystander.heard())]


def remaining() -> list[tuple[str, str]]:
    """Namespaces that the kernel has not removed a minute after their last user was gone; see violations(). Nothing where they cannot be
    counted."""
    try:
        eventually("whether they are gone", lambda: namespace_count.at_most(NetworkNamespace.held), within=_LONGEST, every=_EVERY)
    except ExpectationFailed:
        return [("namespaces", "are left")]
    except MissingFeature:
        pass
    return []
