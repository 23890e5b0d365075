"""The sysctls that build() pins in each new network namespace: those that the kernel copies from the host's, or derives from the
host's memory, and those that keep IPv6 quiet. A host's sysctl.d then changes no result.

The kernel copies from the initial namespace the IPv4 settings of devices, and with net.core.devconf_inherit_init_net=1 the IPv6 ones
too (devinet_init_net(), addrconf_init_net()); buffer sizes and the congestion control of TCP (tcp_sk_init()); and the settings of
neighbours, for each new interface (neigh_parms_alloc()). All else a namespace begins with is the kernel's own, which the tests judge.
The values are those of a stock kernel. Source: Documentation/networking/ip-sysctl.rst.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from netns.hosts.host import Host
from netns.hosts.namespace import NetworkNamespace
from netns.hosts.sysctl import read

# Forwarding comes first: writing it sets accept_redirects.
_IPV4_DEVICE = {
    "forwarding": 0, "accept_local": 0, "accept_redirects": 1, "arp_accept": 0, "arp_announce": 0, "arp_evict_nocarrier": 1,
    "arp_filter": 0, "arp_ignore": 0, "arp_notify": 0, "bc_forwarding": 0, "disable_policy": 0, "disable_xfrm": 0,
    "drop_gratuitous_arp": 0, "drop_unicast_in_l2_multicast": 0, "force_igmp_version": 0,
    "igmpv2_unsolicited_report_interval": 10000, "igmpv3_unsolicited_report_interval": 1000, "ignore_routes_with_linkdown": 0,
    "log_martians": 0, "medium_id": 0, "promote_secondaries": 0, "proxy_arp": 0, "proxy_arp_pvlan": 0, "route_localnet": 0,
    "rp_filter": 0, "secure_redirects": 1, "send_redirects": 1, "shared_media": 1, "src_valid_mark": 0,
}
_IPV6_DEVICE = {
    "forwarding": 0, "disable_ipv6": 0, "accept_redirects": 1, "accept_source_route": 0, "accept_untracked_na": 0, "addr_gen_mode": 0,
    "autoconf": 1, "dad_transmits": 1, "disable_policy": 0, "drop_unicast_in_l2_multicast": 0, "drop_unsolicited_na": 0,
    "force_mld_version": 0, "force_tllao": 0, "hop_limit": 64, "ignore_routes_with_linkdown": 0, "keep_addr_on_down": 0,
    "mldv1_unsolicited_report_interval": 10000, "mldv2_unsolicited_report_interval": 1000, "ndisc_evict_nocarrier": 1,
    "ndisc_notify": 0, "ndisc_tclass": 0, "optimistic_dad": 0, "proxy_ndp": 0, "seg6_enabled": 0, "suppress_frag_ndisc": 1,
    "use_oif_addrs_only": 0, "use_optimistic": 0,
}
# No duplicate address detection, and no random traffic: no router is asked for, and none is listened to.
_QUIET_IPV6 = {"all.accept_dad": 0, "default.accept_dad": 0, "default.accept_ra": 0, "default.router_solicitations": 0}
_LOOPBACK_ONLY = {"disable_policy", "disable_xfrm"}     # 1 on IPv4's loopback
# For a machine of 512 MB; the kernel derives the last of each, and the lengths of the queues, from the memory.
_TCP = {
    "tcp_congestion_control": "cubic", "tcp_max_syn_backlog": 128, "tcp_max_tw_buckets": 2048,
    "tcp_rmem": "4096 131072 3145728", "tcp_wmem": "4096 16384 3145728",
}
# A namespace may choose only among those of the host's tcp_allowed_congestion_control (tcp_set_default_congestion_control()).
_OTHERWISE = {"net.ipv4.tcp_congestion_control": ("reno",)}
_NEIGHBOUR = {
    "app_solicit": 0, "base_reachable_time_ms": 30000, "delay_first_probe_time": 5, "gc_stale_time": 60, "mcast_resolicit": 0,
    "mcast_solicit": 3, "retrans_time_ms": 1000, "ucast_solicit": 3, "unres_qlen_bytes": 212992,
}

NAMESPACE: Mapping[str, str] = {name: str(value) for name, value in {
    **{f"net.ipv4.conf.{device}.{name}": value for name, value in _IPV4_DEVICE.items() for device in ("all", "default")},
    "net.ipv4.conf.all.accept_source_route": 0, "net.ipv4.conf.default.accept_source_route": 1,
    **{f"net.ipv4.conf.lo.{name}": value for name, value in _IPV4_DEVICE.items() if name not in _LOOPBACK_ONLY},
    **{f"net.ipv6.conf.{device}.{name}": value for name, value in _IPV6_DEVICE.items() for device in ("all", "default", "lo")},
    **{f"net.ipv6.conf.{name}": value for name, value in _QUIET_IPV6.items()},
    **{f"net.ipv4.{name}": value for name, value in _TCP.items()},
}.items()}
# For each interface; {} is its name. A namespace has no default for them that could be written.
INTERFACE: Mapping[str, str] = {f"net.{ip}.neigh.{{}}.{name}": str(value) for ip in ("ipv4", "ipv6") for name, value in _NEIGHBOUR.items()}

# Without a limit for ICMP errors, for families that count them: the masks say which types are limited.
NO_ICMP_LIMITS = {
    "net.ipv4.icmp_ratelimit": 0, "net.ipv4.icmp_ratemask": 0, "net.ipv6.icmp.ratelimit": 0, "net.ipv6.icmp.ratemask": "\n",
}


def pin_namespace(host: Host) -> None:
    """Give a new host the values of NAMESPACE. Call it before its interfaces exist: each copies the defaults when it is created.
    Raises OSError."""
    host.pin(differing()[0])


def pin_interfaces(host: Host) -> None:
    """Give the host's interfaces the values of INTERFACE. Raises OSError."""
    if of_interfaces := differing()[1]:
        host.pin({name.format(device): value for device in ("lo", *(each.name for each in host.interfaces.values()))
                  for name, value in of_interfaces.items()})


@cache
def differing() -> tuple[dict[str, str], dict[str, str]]:
    """The parts of NAMESPACE and INTERFACE that a new namespace does not have of itself. All of a process's begin alike: one is read."""
    with NetworkNamespace() as fresh, fresh.entered():
        return _chosen(NAMESPACE), _chosen(INTERFACE)


def _chosen(table: Mapping[str, str]) -> dict[str, str]:
    """The entries that have another value in this thread's namespace and can be written; a kernel may lack some."""
    chosen = {}
    for name, value in table.items():
        file = name.format("lo")
        found = read([file]).get(file, value)
        for wanted in (value, *_OTHERWISE.get(name, ())):
            if found.split() == wanted.split():
                break
            with suppress(OSError):
                Path("/proc/sys", file.replace(".", "/")).write_text(wanted)
                chosen[name] = wanted
                break
    return chosen
