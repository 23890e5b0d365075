"""What each sysctl means, in a few words. Source: Documentation/networking/ip-sysctl.rst and its neighbours."""

_MEANINGS = {
    "accept_dad": "duplicate address detection (0: addresses are usable at once)",
    "accept_ra": "accept router advertisements",
    "router_solicitations": "number of router solicitations",
    "ip_forward": "forward IPv4",
    "forwarding": "forward IPv6",
    "rp_filter": "reverse path filter",
    "tcp_timestamps": "TCP timestamps (RFC 7323)",
    "tcp_tw_reuse": "connect() may reuse a port in TIME_WAIT",
    "tcp_fin_timeout": "seconds in FIN_WAIT2",
    "tcp_syn_retries": "SYN retransmissions",
    "tcp_synack_retries": "SYN-ACK retransmissions",
    "tcp_syn_linear_timeouts": "SYN retransmissions one second apart, before the exponential backoff",
    "tcp_syncookies": "SYN cookies",
    "tcp_retries2": "data retransmissions before the connection ends",
    "tcp_ecn": "explicit congestion notification",
    "tcp_rmem": "receive buffer in bytes: min, default, max",
    "tcp_wmem": "send buffer in bytes: min, default, max",
    "tcp_migrate_req": "connection requests of a closed listener migrate within its reuseport group",
    "tcp_mtu_probing": "packetization layer path MTU discovery (RFC 4821)",
    "tcp_keepalive_time": "idle seconds before the first keepalive probe",
    "tcp_keepalive_intvl": "seconds between keepalive probes",
    "tcp_keepalive_probes": "unanswered keepalive probes before the connection ends",
    "ip_no_pmtu_disc": "path MTU discovery mode",
    "mtu_expires": "lifetime of a learned path MTU in seconds",
    "min_pmtu": "minimum path MTU",
    "icmp_ratelimit": "minimum interval between ICMP errors to one host",
    "icmp_ratemask": "rate-limited ICMP types",
    "xfrm_larval_drop": "while an SA is negotiated, drop packets (1) or hold them (0)",
    "xfrm_acq_expires": "lifetime of a larval SA in seconds",
    "pmtu_disc": "IPVS honours the tunnel's path MTU",
}


def meaning(name, value):
    """For the comment above the line that sets it."""
    return "%s: %s" % (_MEANINGS.get(name.rsplit(".", 1)[-1], "pinned, because the result may depend on it"), value or "none")
