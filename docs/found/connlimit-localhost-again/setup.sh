#!/bin/sh
# tests/conntrack/test_limit.py::test_connections_over_the_limit_are_refused[ipv4-localhost-connlimit]
# The hosts of this case as network namespaces, with the commands that a person would type. Needs root and iproute2.
#     sh setup.sh            builds it
#     sh setup.sh down       takes it down
set -e

# A new namespace copies these from the machine's own: as a stock kernel has them.
usual() {
    for setting in all.forwarding=0 default.forwarding=0 all.accept_local=0 default.accept_local=0 all.accept_redirects=1 \
        default.accept_redirects=1 all.arp_accept=0 default.arp_accept=0 all.arp_announce=0 default.arp_announce=0 \
        all.arp_evict_nocarrier=1 default.arp_evict_nocarrier=1 all.arp_filter=0 default.arp_filter=0 all.arp_ignore=0 \
        default.arp_ignore=0 all.arp_notify=0 default.arp_notify=0 all.bc_forwarding=0 default.bc_forwarding=0 \
        all.disable_policy=0 default.disable_policy=0 all.disable_xfrm=0 default.disable_xfrm=0 all.drop_gratuitous_arp=0 \
        default.drop_gratuitous_arp=0 all.drop_unicast_in_l2_multicast=0 default.drop_unicast_in_l2_multicast=0 \
        all.force_igmp_version=0 default.force_igmp_version=0 all.igmpv2_unsolicited_report_interval=10000 \
        default.igmpv2_unsolicited_report_interval=10000 all.igmpv3_unsolicited_report_interval=1000 \
        default.igmpv3_unsolicited_report_interval=1000 all.ignore_routes_with_linkdown=0 default.ignore_routes_with_linkdown=0 \
        all.log_martians=0 default.log_martians=0 all.medium_id=0 default.medium_id=0 all.promote_secondaries=0 \
        default.promote_secondaries=0 all.proxy_arp=0 default.proxy_arp=0 all.proxy_arp_pvlan=0 default.proxy_arp_pvlan=0 \
        all.route_localnet=0 default.route_localnet=0 all.rp_filter=0 default.rp_filter=0 all.secure_redirects=1 \
        default.secure_redirects=1 all.send_redirects=1 default.send_redirects=1 all.shared_media=1 default.shared_media=1 \
        all.src_valid_mark=0 default.src_valid_mark=0 all.accept_source_route=0 default.accept_source_route=1
    do ip netns exec "$1" sysctl -qew "net.ipv4.conf.$setting"; done
}

if [ "$1" = down ]; then
    for host in client server; do ip netns delete "$host"; done
    exit
fi

# host client
ip netns add client

# host server
ip netns add server

# client: nothing of this machine's settings
usual client

# client: addresses are usable at once (no duplicate address detection): 0
ip netns exec client sysctl -qw net.ipv6.conf.default.accept_dad=0

# client: no router advertisements are taken: 0
ip netns exec client sysctl -qw net.ipv6.conf.default.accept_ra=0

# client: no router is asked for: 0
ip netns exec client sysctl -qw net.ipv6.conf.default.router_solicitations=0

# client: pinned, since the result may depend on it: reno
ip netns exec client sysctl -qw net.ipv4.tcp_congestion_control=reno

# client: pinned, since the result may depend on it: 128
ip netns exec client sysctl -qw net.ipv4.tcp_max_syn_backlog=128

# client: pinned, since the result may depend on it: 2048
ip netns exec client sysctl -qw net.ipv4.tcp_max_tw_buckets=2048

# client: the receive buffer's size: least, default, most: 4096 131072 3145728
ip netns exec client sysctl -qw 'net.ipv4.tcp_rmem=4096 131072 3145728'

# client: the send buffer's size: least, default, most: 4096 16384 3145728
ip netns exec client sysctl -qw 'net.ipv4.tcp_wmem=4096 16384 3145728'

# server: nothing of this machine's settings
usual server

# server: addresses are usable at once (no duplicate address detection): 0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_dad=0

# server: no router advertisements are taken: 0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_ra=0

# server: no router is asked for: 0
ip netns exec server sysctl -qw net.ipv6.conf.default.router_solicitations=0

# server: pinned, since the result may depend on it: reno
ip netns exec server sysctl -qw net.ipv4.tcp_congestion_control=reno

# server: pinned, since the result may depend on it: 128
ip netns exec server sysctl -qw net.ipv4.tcp_max_syn_backlog=128

# server: pinned, since the result may depend on it: 2048
ip netns exec server sysctl -qw net.ipv4.tcp_max_tw_buckets=2048

# server: the receive buffer's size: least, default, most: 4096 131072 3145728
ip netns exec server sysctl -qw 'net.ipv4.tcp_rmem=4096 131072 3145728'

# server: the send buffer's size: least, default, most: 4096 16384 3145728
ip netns exec server sysctl -qw 'net.ipv4.tcp_wmem=4096 16384 3145728'

# a cable between client and server: a veth pair, MTU 1500
ip link add name to-server netns client address 00:00:5e:00:53:01 mtu 1500 type veth peer name to-client netns server address 00:00:5e:00:53:02 mtu 1500

# client: the interface is up
ip -n client link set dev lo up

# client: the interface is up
ip -n client link set dev to-server up

# client: its address
ip -n client address add 192.0.2.1/24 dev to-server

# client: its address, usable at once (no duplicate address detection)
ip -n client address add 2001:db8:1::1/64 dev to-server nodad

# server: the interface is up
ip -n server link set dev lo up

# server: the interface is up
ip -n server link set dev to-client up

# server: its address
ip -n server address add 192.0.2.2/24 dev to-client

# server: its address, usable at once (no duplicate address detection)
ip -n server address add 2001:db8:1::2/64 dev to-client nodad

