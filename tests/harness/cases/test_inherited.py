"""A host whose sysctls are as no one leaves them: what a topology takes over from it."""

from pathlib import Path

import pytest

import netns
from fixtures.topologies import LAN
from netns.hosts import pinned, sysctl

# Of the machine, whose new namespaces copy them; see netns.hosts.pinned.
COPIED = {
    "net.core.devconf_inherit_init_net": 1,
    "net.ipv4.conf.all.forwarding": 1, "net.ipv4.conf.all.rp_filter": 1, "net.ipv4.conf.default.rp_filter": 1,
    "net.ipv4.conf.all.arp_ignore": 2, "net.ipv4.conf.default.accept_redirects": 0, "net.ipv4.conf.all.accept_source_route": 1,
    "net.ipv6.conf.all.forwarding": 1, "net.ipv6.conf.default.accept_ra": 2, "net.ipv6.conf.default.hop_limit": 9,
    "net.ipv6.conf.all.disable_ipv6": 1,
    "net.ipv4.tcp_congestion_control": "reno", "net.ipv4.tcp_rmem": "4096 4096 4096", "net.ipv4.tcp_wmem": "4096 4096 4096",
    "net.ipv4.neigh.default.mcast_solicit": 9, "net.ipv6.neigh.default.retrans_time_ms": 9000,
}
# Also of the machine; a new namespace has the kernel's own.
NOT_COPIED = {
    "net.ipv4.tcp_timestamps": 0, "net.ipv4.tcp_ecn": 1, "net.ipv4.tcp_sack": 0, "net.ipv4.icmp_ratelimit": 0,
    "net.ipv4.icmp_ratemask": 0, "net.ipv6.icmp.ratelimit": 0, "net.ipv4.tcp_keepalive_time": 9, "net.ipv4.tcp_syn_retries": 1,
    "net.ipv4.ip_local_port_range": "50000 50001", "net.ipv4.ip_no_pmtu_disc": 1, "net.ipv4.ip_default_ttl": 9,
    "net.core.somaxconn": 9,
}


def settings():
    """Of the machine's own namespace, of a new one, and of both hosts of a topology: name -> value."""
    with netns.build(LAN) as network:
        found = []
        for host in network.hosts.values():
            interface = next(iter(host.interfaces.values())).name
            with host.entered():
                files = [*pinned.NAMESPACE, *NOT_COPIED, *(name.format(each) for name in pinned.INTERFACE for each in ("lo", interface))]
                found.append({name.replace(interface, "{}"): value.split() for name, value in sysctl.read(files).items()})
        return found


@pytest.fixture
def usual():
    """The settings of a topology before the machine's change; afterwards they are as they were."""
    found = settings()
    files = {Path("/proc/sys", name.replace(".", "/")): value for name, value in {**COPIED, **NOT_COPIED}.items()}
    before = {file: file.read_text() for file in files}
    for file, value in files.items():
        file.write_text(str(value))
    forget()
    yield found
    for file, value in before.items():
        file.write_text(value)
    forget()


def forget():
    """As a process that begins now."""
    pinned.differing.cache_clear()


def test_a_topology_has_the_same_sysctls_on_every_host(usual):
    fresh = sysctl.defaults()
    taken = {name: fresh[name].split() for name in COPIED if name in fresh}
    assert taken == {name: str(COPIED[name]).split() for name in taken} and len(taken) > 10     # the kernel does copy them

    assert settings() == usual
    for host in usual:
        assert {name: host[name] for name in pinned.NAMESPACE if name in host} == \
            {name: value.split() for name, value in pinned.NAMESPACE.items() if name in host}
