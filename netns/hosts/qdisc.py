"""Queueing disciplines: what holds a packet between the socket and the wire. Source: tc(8)."""

from collections.abc import Iterator
from contextlib import contextmanager

from netns.errors import MissingFeature
from netns.hosts.host import Host
from netns.lacking import UnsupportedCommand


@contextmanager
def qdisc(host: Host, interface: str, *description: str) -> Iterator[None]:
    """The interface has this root qdisc for the time of the block, then its former kind; what it held is dropped.

    `description` are the words of tc(8): "tbf", "rate", "8kbit", ... Raises MissingFeature where the kernel has no
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
    """A token bucket that lets the first packets pass and all others at `rate` ("8bit" holds them for good).

    Unlike netem with a delay, which takes packets off their socket's account, tbf leaves them there.
    """
    return qdisc(host, interface, "tbf", "rate", rate, "burst", "2000", "limit", "10000000")
