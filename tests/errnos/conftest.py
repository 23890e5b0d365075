"""Pinned sysctls for the errno tests, and an address that never answers."""

import socket

import pytest

from netns import Network
from netns.hosts.pinned import NO_ICMP_LIMITS

PINNED = {
    "net.ipv4.tcp_syn_retries": 6,
    "net.ipv4.tcp_timestamps": 1,
    "net.ipv4.tcp_ecn": 0,
    "net.ipv4.tcp_abort_on_overflow": 0,
    "net.ipv4.tcp_rfc1337": 0,
    **NO_ICMP_LIMITS,
    "net.ipv4.ip_no_pmtu_disc": 0,
}
# The number of SYNs 1 s apart before exponential backoff; since 6.5.
LINEAR = "net.ipv4.tcp_syn_linear_timeouts"


@pytest.fixture(autouse=True)
def pinned(net: Network) -> None:
    for host in net.hosts.values():
        host.pin(PINNED)


@pytest.fixture
def syn_retries(net: Network):
    """syn_retries(count, linear) sets the client's tcp_syn_retries and, where the kernel has it, tcp_syn_linear_timeouts;
    returns the value of the latter, 0 without it."""
    client = net["client"]

    def set_to(count: int, linear: int) -> int:
        client.pin({"net.ipv4.tcp_syn_retries": count})
        try:
            client.pin({LINEAR: linear})
        except FileNotFoundError:
            return 0
        return linear

    return set_to


@pytest.fixture
def silence(net: Network, family: socket.AddressFamily) -> tuple[str, int]:
    """An address and port for which the router has a blackhole route."""
    address = "203.0.113.9" if family == socket.AF_INET else "2001:db8:ff::9"
    net["router"].run(["ip", "route", "add", "blackhole", address])
    return address, 9
