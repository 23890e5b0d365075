"""Queueing disciplines, which hold packets between the socket and the wire. Source: tc(8)."""

from collections.abc import Iterator
from contextlib import contextmanager

from netns.errors import MissingFeature
from netns.hosts.host import Host
from netns.unsupported import UnsupportedCommand


@contextmanager
def qdisc(host: Host, interface: str, *description: str) -> Iterator[None]:
    """Within the block the interface has this root qdisc, then the default one again; queued packets are dropped.

    `description` are the arguments of tc(8): "tbf", "rate", "8kbit", ... Raises MissingFeature if the kernel has no
    such qdisc, CommandError.
    """
    try:
        host.run(["tc", "qdisc", "replace", "dev", interface, "root", *description])
    except UnsupportedCommand as error:
        raise MissingFeature(f"the kernel has no qdisc {description[0]}") from error
    try:
        yield
    finally:
        host.run(["tc", "qdisc", "del", "dev", interface, "root"])


def tbf(host: Host, interface: str, rate: str):
    """A token bucket: the first packets pass, the others leave at `rate` ("8bit" holds them longer than any test).

    Unlike netem with a delay, which orphans the packets, tbf leaves them charged to their socket.
    """
    return qdisc(host, interface, "tbf", "rate", rate, "burst", "2000", "limit", "10000000")
