#!/bin/sh
# tests/larval/test_held_route.py::test_route_of_a_held_packet_is_freed_with_its_namespace
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
    for host in ; do ip netns delete "$host"; done
    exit
fi

