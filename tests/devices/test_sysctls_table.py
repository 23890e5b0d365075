"""Sysctls of a device: what cannot be a value is refused and changes nothing; who listens is told of a change.

Source: kernel/sysctl.c, proc_dointvec(): EINVAL for what is no integer, or none of 32 bits; ip-sysctl.rst; include/uapi/linux/netconf.h,
which has the sysctls that RTM_NEWNETCONF tells of.
"""

import socket
from pathlib import Path

import pytest

from fixtures.table import Table
from fixtures.topologies import LAN
from netns import MissingFeature
from netns.attempt import errno_of
from netns.hosts.operations import write

pytestmark = pytest.mark.topology(LAN)

SYSCTLS = {
    "ipv4": (
        "forwarding", "bc_forwarding", "accept_redirects", "secure_redirects", "shared_media", "rp_filter", "send_redirects",
        "accept_source_route", "accept_local", "src_valid_mark", "proxy_arp", "medium_id", "bootp_relay", "log_martians", "tag",
        "arp_filter", "arp_announce", "arp_ignore", "arp_accept", "arp_notify", "proxy_arp_pvlan", "force_igmp_version",
        "igmpv2_unsolicited_report_interval", "igmpv3_unsolicited_report_interval", "ignore_routes_with_linkdown", "drop_gratuitous_arp",
        "disable_xfrm", "disable_policy", "promote_secondaries", "route_localnet", "drop_unicast_in_l2_multicast"),
    "ipv6": (
        "forwarding", "hop_limit", "mtu", "accept_ra", "accept_redirects", "autoconf", "dad_transmits", "router_solicitations",
        "router_solicitation_interval", "router_solicitation_max_interval", "router_solicitation_delay", "force_mld_version",
        "mldv1_unsolicited_report_interval", "mldv2_unsolicited_report_interval", "use_tempaddr", "temp_valid_lft", "temp_prefered_lft",
        "regen_max_retry", "max_desync_factor", "max_addresses", "accept_ra_defrtr", "accept_ra_min_hop_limit", "accept_ra_pinfo",
        "accept_ra_rtr_pref", "router_probe_interval", "accept_ra_rt_info_min_plen", "accept_ra_rt_info_max_plen", "proxy_ndp",
        "accept_source_route", "disable_ipv6", "accept_dad", "force_tllao", "ndisc_notify", "suppress_frag_ndisc",
        "accept_ra_from_local", "accept_ra_mtu", "use_oif_addrs_only", "ignore_routes_with_linkdown", "drop_unicast_in_l2_multicast",
        "drop_unsolicited_na", "keep_addr_on_down", "seg6_enabled", "enhanced_dad", "addr_gen_mode", "disable_policy", "ndisc_tclass",
        "rpl_seg_enabled"),
}
WRONG = {"a word": "x", "a number and a letter": "1x", "beyond 32 bits": "4294967297", "far beyond 64 bits": "9" * 40}
SAME, OTHER = "the same number", "another number"
TOLD = {"ipv4": ("forwarding", "rp_filter", "proxy_arp", "bc_forwarding", "ignore_routes_with_linkdown"),
        "ipv6": ("forwarding", "proxy_ndp", "ignore_routes_with_linkdown")}
GROUPS = {"ipv4": 24, "ipv6": 25}           # RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF
SOL_NETLINK, ADD_MEMBERSHIP, NEWNETCONF = 270, 1, 80
TABLE = Table("devices.sysctls", "sysctl", "what is written", "kernel/sysctl.c, proc_dointvec(); netconf.h", {
    f"{family} {name}": {
        **dict.fromkeys(WRONG, "EINVAL, unchanged"), SAME: "done, unchanged",
        **({OTHER: "done, changed, told"} if name in TOLD[family] else {}),
    } for family, names in SYSCTLS.items() for name in names})


def told(listener):
    """Whether a notification has come."""
    found = False
    while True:
        try:
            found |= int.from_bytes(listener.recv(1 << 16)[4:6], "little") == NEWNETCONF
        except BlockingIOError:
            return found


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_sysctl_of_a_device_takes_numbers_alone(net, row, table):
    """The file is read after each write."""
    host = net["client"]
    family, name = row.split()
    with host.entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as listener:
        file = Path(f"/proc/sys/net/{family}/conf/{next(iter(host.interfaces.values())).name}/{name}")
        if not file.exists():
            raise MissingFeature(f"the kernel has no sysctl {name} of a device")
        listener.bind((0, 0))
        listener.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, GROUPS[family])
        listener.setblocking(False)
        for column in table:
            before = file.read_text().strip()
            text = {SAME: before, OTHER: str(1 - bool(int(before)))}.get(column, WRONG.get(column))
            answer = errno_of(write, str(file), text)
            seen = [answer if isinstance(answer, str) else "done", "unchanged" if file.read_text().strip() == before else "changed"]
            table.saw(", ".join([*seen, *["told"] * told(listener)]))
