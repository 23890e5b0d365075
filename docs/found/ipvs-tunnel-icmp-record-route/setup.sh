#!/bin/sh
# tests/pmtu/test_ipvs_icmp.py::test_director_relays_a_tunnel_error_quoting_the_clients_own_packet[3-4-room-ipv4]
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
    for host in client router director server1 server2; do ip netns delete "$host"; done
    exit
fi

# host client
ip netns add client

# host router
ip netns add router

# host director
ip netns add director

# host server1
ip netns add server1

# host server2
ip netns add server2

# client: nothing of this machine's settings
usual client

# client: addresses are usable at once (no duplicate address detection): 0
ip netns exec client sysctl -qw net.ipv6.conf.default.accept_dad=0

# client: no router advertisements are taken: 0
ip netns exec client sysctl -qw net.ipv6.conf.default.accept_ra=0

# client: no router is asked for: 0
ip netns exec client sysctl -qw net.ipv6.conf.default.router_solicitations=0

# client: the receive buffer's size: least, default, most: 4096 131072 3145728
ip netns exec client sysctl -qw 'net.ipv4.tcp_rmem=4096 131072 3145728'

# client: the send buffer's size: least, default, most: 4096 16384 3145728
ip netns exec client sysctl -qw 'net.ipv4.tcp_wmem=4096 16384 3145728'

# router: nothing of this machine's settings
usual router

# router: addresses are usable at once (no duplicate address detection): 0
ip netns exec router sysctl -qw net.ipv6.conf.default.accept_dad=0

# router: no router advertisements are taken: 0
ip netns exec router sysctl -qw net.ipv6.conf.default.accept_ra=0

# router: no router is asked for: 0
ip netns exec router sysctl -qw net.ipv6.conf.default.router_solicitations=0

# router: the receive buffer's size: least, default, most: 4096 131072 3145728
ip netns exec router sysctl -qw 'net.ipv4.tcp_rmem=4096 131072 3145728'

# router: the send buffer's size: least, default, most: 4096 16384 3145728
ip netns exec router sysctl -qw 'net.ipv4.tcp_wmem=4096 16384 3145728'

# router: forwards IPv4: 1
ip netns exec router sysctl -qw net.ipv4.ip_forward=1

# router: forwards IPv6: 1
ip netns exec router sysctl -qw net.ipv6.conf.all.forwarding=1

# director: nothing of this machine's settings
usual director

# director: addresses are usable at once (no duplicate address detection): 0
ip netns exec director sysctl -qw net.ipv6.conf.default.accept_dad=0

# director: no router advertisements are taken: 0
ip netns exec director sysctl -qw net.ipv6.conf.default.accept_ra=0

# director: no router is asked for: 0
ip netns exec director sysctl -qw net.ipv6.conf.default.router_solicitations=0

# director: the receive buffer's size: least, default, most: 4096 131072 3145728
ip netns exec director sysctl -qw 'net.ipv4.tcp_rmem=4096 131072 3145728'

# director: the send buffer's size: least, default, most: 4096 16384 3145728
ip netns exec director sysctl -qw 'net.ipv4.tcp_wmem=4096 16384 3145728'

# server1: nothing of this machine's settings
usual server1

# server1: addresses are usable at once (no duplicate address detection): 0
ip netns exec server1 sysctl -qw net.ipv6.conf.default.accept_dad=0

# server1: no router advertisements are taken: 0
ip netns exec server1 sysctl -qw net.ipv6.conf.default.accept_ra=0

# server1: no router is asked for: 0
ip netns exec server1 sysctl -qw net.ipv6.conf.default.router_solicitations=0

# server1: the receive buffer's size: least, default, most: 4096 131072 3145728
ip netns exec server1 sysctl -qw 'net.ipv4.tcp_rmem=4096 131072 3145728'

# server1: the send buffer's size: least, default, most: 4096 16384 3145728
ip netns exec server1 sysctl -qw 'net.ipv4.tcp_wmem=4096 16384 3145728'

# server2: nothing of this machine's settings
usual server2

# server2: addresses are usable at once (no duplicate address detection): 0
ip netns exec server2 sysctl -qw net.ipv6.conf.default.accept_dad=0

# server2: no router advertisements are taken: 0
ip netns exec server2 sysctl -qw net.ipv6.conf.default.accept_ra=0

# server2: no router is asked for: 0
ip netns exec server2 sysctl -qw net.ipv6.conf.default.router_solicitations=0

# server2: the receive buffer's size: least, default, most: 4096 131072 3145728
ip netns exec server2 sysctl -qw 'net.ipv4.tcp_rmem=4096 131072 3145728'

# server2: the send buffer's size: least, default, most: 4096 16384 3145728
ip netns exec server2 sysctl -qw 'net.ipv4.tcp_wmem=4096 16384 3145728'

# a cable between client and router: a veth pair, MTU 1500
ip link add name to-router netns client address 00:00:5e:00:53:01 mtu 1500 type veth peer name to-client netns router address 00:00:5e:00:53:02 mtu 1500

# a cable between director and router: a veth pair, MTU 1500
ip link add name to-router netns director address 00:00:5e:00:53:03 mtu 1500 type veth peer name to-director netns router address 00:00:5e:00:53:04 mtu 1500

# a cable between server1 and router: a veth pair, MTU 1500
ip link add name to-router netns server1 address 00:00:5e:00:53:05 mtu 1500 type veth peer name to-server1 netns router address 00:00:5e:00:53:06 mtu 1500

# a cable between server2 and router: a veth pair, MTU 1500
ip link add name to-router netns server2 address 00:00:5e:00:53:07 mtu 1500 type veth peer name to-server2 netns router address 00:00:5e:00:53:08 mtu 1500

# client: the interface is up
ip -n client link set dev lo up

# client: the interface is up
ip -n client link set dev to-router up

# client: its address
ip -n client address add 192.0.2.1/24 dev to-router

# client: its address, usable at once (no duplicate address detection)
ip -n client address add 2001:db8:1::1/64 dev to-router nodad

# client: the way to everywhere else
ip -n client route add 0.0.0.0/0 proto static via 192.0.2.2 dev to-router

# client: the way to everywhere else
ip -n client route add ::/0 proto static via 2001:db8:1::2 dev to-router

# router: the interface is up
ip -n router link set dev lo up

# router: the interface is up
ip -n router link set dev to-client up

# router: its address
ip -n router address add 192.0.2.2/24 dev to-client

# router: its address, usable at once (no duplicate address detection)
ip -n router address add 2001:db8:1::2/64 dev to-client nodad

# router: the interface is up
ip -n router link set dev to-director up

# router: its address
ip -n router address add 198.51.100.2/28 dev to-director

# router: its address, usable at once (no duplicate address detection)
ip -n router address add 2001:db8:2::2/64 dev to-director nodad

# router: the interface is up
ip -n router link set dev to-server1 up

# router: its address
ip -n router address add 198.51.100.18/28 dev to-server1

# router: its address, usable at once (no duplicate address detection)
ip -n router address add 2001:db8:3::2/64 dev to-server1 nodad

# router: the interface is up
ip -n router link set dev to-server2 up

# router: its address
ip -n router address add 198.51.100.34/28 dev to-server2

# router: its address, usable at once (no duplicate address detection)
ip -n router address add 2001:db8:4::2/64 dev to-server2 nodad

# router: the way to 203.0.113.1/32
ip -n router route add 203.0.113.1/32 proto static via 198.51.100.1 dev to-director

# router: the way to 2001:db8:ff::1/128
ip -n router route add 2001:db8:ff::1/128 proto static via 2001:db8:2::1 dev to-director

# director: the interface is up
ip -n director link set dev lo up

# director: the interface is up
ip -n director link set dev to-router up

# director: its address
ip -n director address add 198.51.100.1/28 dev to-router

# director: its address, usable at once (no duplicate address detection)
ip -n director address add 2001:db8:2::1/64 dev to-router nodad

# director: the way to everywhere else
ip -n director route add 0.0.0.0/0 proto static via 198.51.100.2 dev to-router

# director: the way to everywhere else
ip -n director route add ::/0 proto static via 2001:db8:2::2 dev to-router

# server1: the interface is up
ip -n server1 link set dev lo up

# server1: the interface is up
ip -n server1 link set dev to-router up

# server1: its address
ip -n server1 address add 198.51.100.17/28 dev to-router

# server1: its address, usable at once (no duplicate address detection)
ip -n server1 address add 2001:db8:3::1/64 dev to-router nodad

# server1: the way to everywhere else
ip -n server1 route add 0.0.0.0/0 proto static via 198.51.100.18 dev to-router

# server1: the way to everywhere else
ip -n server1 route add ::/0 proto static via 2001:db8:3::2 dev to-router

# server2: the interface is up
ip -n server2 link set dev lo up

# server2: the interface is up
ip -n server2 link set dev to-router up

# server2: its address
ip -n server2 address add 198.51.100.33/28 dev to-router

# server2: its address, usable at once (no duplicate address detection)
ip -n server2 address add 2001:db8:4::1/64 dev to-router nodad

# server2: the way to everywhere else
ip -n server2 route add 0.0.0.0/0 proto static via 198.51.100.34 dev to-router

# server2: the way to everywhere else
ip -n server2 route add ::/0 proto static via 2001:db8:4::2 dev to-router

# client: the mode of path MTU discovery: 0
ip netns exec client sysctl -qw net.ipv4.ip_no_pmtu_disc=0

# client: pinned, since the result may depend on it: 0
ip netns exec client sysctl -qw net.ipv4.ip_forward_use_pmtu=0

# client: the least distance of ICMP messages: 0
ip netns exec client sysctl -qw net.ipv4.icmp_ratelimit=0

# client: which ICMP messages the limit is for: 0
ip netns exec client sysctl -qw net.ipv4.icmp_ratemask=0

# client: pinned, since the result may depend on it: 0
ip netns exec client sysctl -qw net.ipv6.icmp.ratelimit=0

# client: pinned, since the result may depend on it: none
ip netns exec client sh -c 'echo > /proc/sys/net/ipv6/icmp/ratemask'

# client: the search for the path MTU without ICMP: 0
ip netns exec client sysctl -qw net.ipv4.tcp_mtu_probing=0

# client: pinned, since the result may depend on it: 1024
ip netns exec client sysctl -qw net.ipv4.tcp_base_mss=1024

# client: pinned, since the result may depend on it: 48
ip netns exec client sysctl -qw net.ipv4.tcp_min_snd_mss=48

# client: TCP timestamps (RFC 7323): 1
ip netns exec client sysctl -qw net.ipv4.tcp_timestamps=1

# client: pinned, since the result may depend on it: 1
ip netns exec client sysctl -qw net.ipv4.tcp_sack=1

# client: explicit congestion notification: 0
ip netns exec client sysctl -qw net.ipv4.tcp_ecn=0

# client: pinned, since the result may depend on it: 1
ip netns exec client sysctl -qw net.ipv4.tcp_no_metrics_save=1

# client: pinned, since the result may depend on it: 3
ip netns exec client sysctl -qw net.ipv4.tcp_early_retrans=3

# client: pinned, since the result may depend on it: 0
ip netns exec client sysctl -qw net.ipv4.tcp_autocorking=0

# client: the send buffer's size: least, default, most: 4096 65536 4194304
ip netns exec client sysctl -qw 'net.ipv4.tcp_wmem=4096 65536 4194304'

# client: pinned, since the result may depend on it: reno
ip netns exec client sysctl -qw net.ipv4.tcp_congestion_control=reno

# client: pinned, since the result may depend on it: 0
ip netns exec client sysctl -qw net.ipv4.conf.all.send_redirects=0

# client: pinned, since the result may depend on it: 0
ip netns exec client sysctl -qw net.ipv4.conf.default.send_redirects=0

# client: pinned, since the result may depend on it: 0
ip netns exec client sysctl -qw net.ipv4.conf.all.accept_redirects=0

# client: pinned, since the result may depend on it: 0
ip netns exec client sysctl -qw net.ipv4.conf.default.accept_redirects=0

# client: pinned, since the result may depend on it: 0
ip netns exec client sysctl -qw net.ipv6.conf.all.accept_redirects=0

# client: pinned, since the result may depend on it: 0
ip netns exec client sysctl -qw net.ipv4.conf.to-router.send_redirects=0

# router: the mode of path MTU discovery: 0
ip netns exec router sysctl -qw net.ipv4.ip_no_pmtu_disc=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv4.ip_forward_use_pmtu=0

# router: the least distance of ICMP messages: 0
ip netns exec router sysctl -qw net.ipv4.icmp_ratelimit=0

# router: which ICMP messages the limit is for: 0
ip netns exec router sysctl -qw net.ipv4.icmp_ratemask=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv6.icmp.ratelimit=0

# router: pinned, since the result may depend on it: none
ip netns exec router sh -c 'echo > /proc/sys/net/ipv6/icmp/ratemask'

# router: the search for the path MTU without ICMP: 0
ip netns exec router sysctl -qw net.ipv4.tcp_mtu_probing=0

# router: pinned, since the result may depend on it: 1024
ip netns exec router sysctl -qw net.ipv4.tcp_base_mss=1024

# router: pinned, since the result may depend on it: 48
ip netns exec router sysctl -qw net.ipv4.tcp_min_snd_mss=48

# router: TCP timestamps (RFC 7323): 1
ip netns exec router sysctl -qw net.ipv4.tcp_timestamps=1

# router: pinned, since the result may depend on it: 1
ip netns exec router sysctl -qw net.ipv4.tcp_sack=1

# router: explicit congestion notification: 0
ip netns exec router sysctl -qw net.ipv4.tcp_ecn=0

# router: pinned, since the result may depend on it: 1
ip netns exec router sysctl -qw net.ipv4.tcp_no_metrics_save=1

# router: pinned, since the result may depend on it: 3
ip netns exec router sysctl -qw net.ipv4.tcp_early_retrans=3

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv4.tcp_autocorking=0

# router: the send buffer's size: least, default, most: 4096 65536 4194304
ip netns exec router sysctl -qw 'net.ipv4.tcp_wmem=4096 65536 4194304'

# router: pinned, since the result may depend on it: reno
ip netns exec router sysctl -qw net.ipv4.tcp_congestion_control=reno

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv4.conf.all.send_redirects=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv4.conf.default.send_redirects=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv4.conf.all.accept_redirects=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv4.conf.default.accept_redirects=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv6.conf.all.accept_redirects=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv4.conf.to-client.send_redirects=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv4.conf.to-director.send_redirects=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv4.conf.to-server1.send_redirects=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv4.conf.to-server2.send_redirects=0

# director: the mode of path MTU discovery: 0
ip netns exec director sysctl -qw net.ipv4.ip_no_pmtu_disc=0

# director: pinned, since the result may depend on it: 0
ip netns exec director sysctl -qw net.ipv4.ip_forward_use_pmtu=0

# director: the least distance of ICMP messages: 0
ip netns exec director sysctl -qw net.ipv4.icmp_ratelimit=0

# director: which ICMP messages the limit is for: 0
ip netns exec director sysctl -qw net.ipv4.icmp_ratemask=0

# director: pinned, since the result may depend on it: 0
ip netns exec director sysctl -qw net.ipv6.icmp.ratelimit=0

# director: pinned, since the result may depend on it: none
ip netns exec director sh -c 'echo > /proc/sys/net/ipv6/icmp/ratemask'

# director: the search for the path MTU without ICMP: 0
ip netns exec director sysctl -qw net.ipv4.tcp_mtu_probing=0

# director: pinned, since the result may depend on it: 1024
ip netns exec director sysctl -qw net.ipv4.tcp_base_mss=1024

# director: pinned, since the result may depend on it: 48
ip netns exec director sysctl -qw net.ipv4.tcp_min_snd_mss=48

# director: TCP timestamps (RFC 7323): 1
ip netns exec director sysctl -qw net.ipv4.tcp_timestamps=1

# director: pinned, since the result may depend on it: 1
ip netns exec director sysctl -qw net.ipv4.tcp_sack=1

# director: explicit congestion notification: 0
ip netns exec director sysctl -qw net.ipv4.tcp_ecn=0

# director: pinned, since the result may depend on it: 1
ip netns exec director sysctl -qw net.ipv4.tcp_no_metrics_save=1

# director: pinned, since the result may depend on it: 3
ip netns exec director sysctl -qw net.ipv4.tcp_early_retrans=3

# director: pinned, since the result may depend on it: 0
ip netns exec director sysctl -qw net.ipv4.tcp_autocorking=0

# director: the send buffer's size: least, default, most: 4096 65536 4194304
ip netns exec director sysctl -qw 'net.ipv4.tcp_wmem=4096 65536 4194304'

# director: pinned, since the result may depend on it: reno
ip netns exec director sysctl -qw net.ipv4.tcp_congestion_control=reno

# director: pinned, since the result may depend on it: 0
ip netns exec director sysctl -qw net.ipv4.conf.all.send_redirects=0

# director: pinned, since the result may depend on it: 0
ip netns exec director sysctl -qw net.ipv4.conf.default.send_redirects=0

# director: pinned, since the result may depend on it: 0
ip netns exec director sysctl -qw net.ipv4.conf.all.accept_redirects=0

# director: pinned, since the result may depend on it: 0
ip netns exec director sysctl -qw net.ipv4.conf.default.accept_redirects=0

# director: pinned, since the result may depend on it: 0
ip netns exec director sysctl -qw net.ipv6.conf.all.accept_redirects=0

# director: pinned, since the result may depend on it: 0
ip netns exec director sysctl -qw net.ipv4.conf.to-router.send_redirects=0

# server1: the mode of path MTU discovery: 0
ip netns exec server1 sysctl -qw net.ipv4.ip_no_pmtu_disc=0

# server1: pinned, since the result may depend on it: 0
ip netns exec server1 sysctl -qw net.ipv4.ip_forward_use_pmtu=0

# server1: the least distance of ICMP messages: 0
ip netns exec server1 sysctl -qw net.ipv4.icmp_ratelimit=0

# server1: which ICMP messages the limit is for: 0
ip netns exec server1 sysctl -qw net.ipv4.icmp_ratemask=0

# server1: pinned, since the result may depend on it: 0
ip netns exec server1 sysctl -qw net.ipv6.icmp.ratelimit=0

# server1: pinned, since the result may depend on it: none
ip netns exec server1 sh -c 'echo > /proc/sys/net/ipv6/icmp/ratemask'

# server1: the search for the path MTU without ICMP: 0
ip netns exec server1 sysctl -qw net.ipv4.tcp_mtu_probing=0

# server1: pinned, since the result may depend on it: 1024
ip netns exec server1 sysctl -qw net.ipv4.tcp_base_mss=1024

# server1: pinned, since the result may depend on it: 48
ip netns exec server1 sysctl -qw net.ipv4.tcp_min_snd_mss=48

# server1: TCP timestamps (RFC 7323): 1
ip netns exec server1 sysctl -qw net.ipv4.tcp_timestamps=1

# server1: pinned, since the result may depend on it: 1
ip netns exec server1 sysctl -qw net.ipv4.tcp_sack=1

# server1: explicit congestion notification: 0
ip netns exec server1 sysctl -qw net.ipv4.tcp_ecn=0

# server1: pinned, since the result may depend on it: 1
ip netns exec server1 sysctl -qw net.ipv4.tcp_no_metrics_save=1

# server1: pinned, since the result may depend on it: 3
ip netns exec server1 sysctl -qw net.ipv4.tcp_early_retrans=3

# server1: pinned, since the result may depend on it: 0
ip netns exec server1 sysctl -qw net.ipv4.tcp_autocorking=0

# server1: the send buffer's size: least, default, most: 4096 65536 4194304
ip netns exec server1 sysctl -qw 'net.ipv4.tcp_wmem=4096 65536 4194304'

# server1: pinned, since the result may depend on it: reno
ip netns exec server1 sysctl -qw net.ipv4.tcp_congestion_control=reno

# server1: pinned, since the result may depend on it: 0
ip netns exec server1 sysctl -qw net.ipv4.conf.all.send_redirects=0

# server1: pinned, since the result may depend on it: 0
ip netns exec server1 sysctl -qw net.ipv4.conf.default.send_redirects=0

# server1: pinned, since the result may depend on it: 0
ip netns exec server1 sysctl -qw net.ipv4.conf.all.accept_redirects=0

# server1: pinned, since the result may depend on it: 0
ip netns exec server1 sysctl -qw net.ipv4.conf.default.accept_redirects=0

# server1: pinned, since the result may depend on it: 0
ip netns exec server1 sysctl -qw net.ipv6.conf.all.accept_redirects=0

# server1: pinned, since the result may depend on it: 0
ip netns exec server1 sysctl -qw net.ipv4.conf.to-router.send_redirects=0

# server2: the mode of path MTU discovery: 0
ip netns exec server2 sysctl -qw net.ipv4.ip_no_pmtu_disc=0

# server2: pinned, since the result may depend on it: 0
ip netns exec server2 sysctl -qw net.ipv4.ip_forward_use_pmtu=0

# server2: the least distance of ICMP messages: 0
ip netns exec server2 sysctl -qw net.ipv4.icmp_ratelimit=0

# server2: which ICMP messages the limit is for: 0
ip netns exec server2 sysctl -qw net.ipv4.icmp_ratemask=0

# server2: pinned, since the result may depend on it: 0
ip netns exec server2 sysctl -qw net.ipv6.icmp.ratelimit=0

# server2: pinned, since the result may depend on it: none
ip netns exec server2 sh -c 'echo > /proc/sys/net/ipv6/icmp/ratemask'

# server2: the search for the path MTU without ICMP: 0
ip netns exec server2 sysctl -qw net.ipv4.tcp_mtu_probing=0

# server2: pinned, since the result may depend on it: 1024
ip netns exec server2 sysctl -qw net.ipv4.tcp_base_mss=1024

# server2: pinned, since the result may depend on it: 48
ip netns exec server2 sysctl -qw net.ipv4.tcp_min_snd_mss=48

# server2: TCP timestamps (RFC 7323): 1
ip netns exec server2 sysctl -qw net.ipv4.tcp_timestamps=1

# server2: pinned, since the result may depend on it: 1
ip netns exec server2 sysctl -qw net.ipv4.tcp_sack=1

# server2: explicit congestion notification: 0
ip netns exec server2 sysctl -qw net.ipv4.tcp_ecn=0

# server2: pinned, since the result may depend on it: 1
ip netns exec server2 sysctl -qw net.ipv4.tcp_no_metrics_save=1

# server2: pinned, since the result may depend on it: 3
ip netns exec server2 sysctl -qw net.ipv4.tcp_early_retrans=3

# server2: pinned, since the result may depend on it: 0
ip netns exec server2 sysctl -qw net.ipv4.tcp_autocorking=0

# server2: the send buffer's size: least, default, most: 4096 65536 4194304
ip netns exec server2 sysctl -qw 'net.ipv4.tcp_wmem=4096 65536 4194304'

# server2: pinned, since the result may depend on it: reno
ip netns exec server2 sysctl -qw net.ipv4.tcp_congestion_control=reno

# server2: pinned, since the result may depend on it: 0
ip netns exec server2 sysctl -qw net.ipv4.conf.all.send_redirects=0

# server2: pinned, since the result may depend on it: 0
ip netns exec server2 sysctl -qw net.ipv4.conf.default.send_redirects=0

# server2: pinned, since the result may depend on it: 0
ip netns exec server2 sysctl -qw net.ipv4.conf.all.accept_redirects=0

# server2: pinned, since the result may depend on it: 0
ip netns exec server2 sysctl -qw net.ipv4.conf.default.accept_redirects=0

# server2: pinned, since the result may depend on it: 0
ip netns exec server2 sysctl -qw net.ipv6.conf.all.accept_redirects=0

# server2: pinned, since the result may depend on it: 0
ip netns exec server2 sysctl -qw net.ipv4.conf.to-router.send_redirects=0

# server1: routing, links, addresses
ip netns exec server1 ip -batch - <<'END'
link set dev tunl0 up
address add 203.0.113.1 dev tunl0
END

# server2: routing, links, addresses
ip netns exec server2 ip -batch - <<'END'
link set dev tunl0 up
address add 203.0.113.1 dev tunl0
END

# director: IPVS, the load balancer
ip netns exec director ipvsadm --restore <<'END'
-A -t 203.0.113.1:80 -s rr
-a -t 203.0.113.1:80 -r 198.51.100.17:80 -i
-a -t 203.0.113.1:80 -r 198.51.100.33:80 -i
END

# director: its address
ip -n director address add 203.0.113.1/32 dev lo

# director: IPVS heeds the tunnel's MTU: 1
ip netns exec director sysctl -qw net.ipv4.vs.pmtu_disc=1

# director: pinned, since the result may depend on it: 0
ip netns exec director sysctl -qw net.ipv4.vs.conntrack=0

