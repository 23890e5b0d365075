"""What each sysctl means, in a few words. Source: Documentation/networking/ip-sysctl.rst and its neighbours."""

_MEANINGS = {
    "accept_dad": "addresses are usable at once (no duplicate address detection)",
    "accept_ra": "no router advertisements are taken",
    "router_solicitations": "no router is asked for",
    "ip_forward": "forwards IPv4",
    "forwarding": "forwards IPv6",
    "rp_filter": "the reverse path filter",
    "tcp_timestamps": "TCP timestamps (RFC 7323)",
    "tcp_tw_reuse": "a port in TIME_WAIT may be used again by connect()",
    "tcp_fin_timeout": "seconds in FIN_WAIT2",
    "tcp_syn_retries": "how often a SYN is sent again",
    "tcp_synack_retries": "how often a SYN-ACK is sent again",
    "tcp_syn_linear_timeouts": "SYNs that come every second before the distance doubles",
    "tcp_syncookies": "SYN cookies",
    "tcp_retries2": "how often data is sent again",
    "tcp_ecn": "explicit congestion notification",
    "tcp_rmem": "the receive buffer's size: least, default, most",
    "tcp_wmem": "the send buffer's size: least, default, most",
    "tcp_migrate_req": "requests of a closed listener move to another one of its group",
    "tcp_mtu_probing": "the search for the path MTU without ICMP",
    "tcp_keepalive_time": "idle seconds before the first keepalive probe",
    "tcp_keepalive_intvl": "seconds between keepalive probes",
    "tcp_keepalive_probes": "keepalive probes without an answer",
    "ip_no_pmtu_disc": "the mode of path MTU discovery",
    "mtu_expires": "seconds that a learnt path MTU is kept",
    "min_pmtu": "the least path MTU that is believed",
    "icmp_ratelimit": "the least distance of ICMP messages",
    "icmp_ratemask": "which ICMP messages the limit is for",
    "xfrm_larval_drop": "packets without a security association are dropped (1) or held (0)",
    "xfrm_acq_expires": "seconds that a larval security association stands",
    "pmtu_disc": "IPVS heeds the tunnel's MTU",
}


def meaning(name, value):
    """For the comment above the line that sets it."""
    return "%s: %s" % (_MEANINGS.get(name.rsplit(".", 1)[-1], "pinned, since the result may depend on it"), value or "none")
