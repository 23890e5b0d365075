"""Pinned sysctls for the TIME_WAIT tests, and conntrack on the router."""

from collections.abc import Iterator

import pytest

from netns import Network
from netns.netlink import conntrack

# Mostly the documented defaults (ip-sysctl.rst). tcp_tw_reuse is off: a test that needs it sets it.
PINNED = {
    "net.ipv4.tcp_timestamps": 1,
    "net.ipv4.tcp_tw_reuse": 0,
    "net.ipv4.tcp_rfc1337": 0,
    "net.ipv4.tcp_fin_timeout": 60,
    "net.ipv4.tcp_max_tw_buckets": 65536,
    "net.ipv4.tcp_invalid_ratelimit": 500,
    "net.ipv4.tcp_syncookies": 1,
    "net.ipv4.tcp_ecn": 0,
    "net.ipv4.tcp_abort_on_overflow": 0,
}


@pytest.fixture(autouse=True)
def pinned(net: Network) -> None:
    for host in net.hosts.values():
        host.pin(PINNED)


@pytest.fixture
def tracker(net: Network) -> Iterator[conntrack.Tracker]:
    """Connection tracking on the router."""
    with conntrack.tracking(net["router"]) as tracker:
        yield tracker
