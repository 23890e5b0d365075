#!/bin/sh
# tests/routing/test_source_address.py::test_an_interface_without_an_address_lends_one_that_reaches_as_far_as_the_packet[ipv6-nothing]
# The hosts of this case as network namespaces, with the commands that a person would type. Needs root and iproute2.
#     sh setup.sh            builds it
#     sh setup.sh down       takes it down
set -e

if [ "$1" = down ]; then
    for host in client router server; do ip netns delete "$host"; done
    exit
fi

# host client
ip netns add client

# host router
ip netns add router

# host server
ip netns add server

# client: addresses are usable at once (no duplicate address detection): 0
ip netns exec client sysctl -qw net.ipv6.conf.all.accept_dad=0

# client: addresses are usable at once (no duplicate address detection): 0
ip netns exec client sysctl -qw net.ipv6.conf.default.accept_dad=0

# client: pinned, since the result may depend on it: 0
ip netns exec client sysctl -qw net.ipv6.conf.default.addr_gen_mode=0

# client: no router advertisements are taken: 0
ip netns exec client sysctl -qw net.ipv6.conf.default.accept_ra=0

# client: no router is asked for: 0
ip netns exec client sysctl -qw net.ipv6.conf.default.router_solicitations=0

# router: addresses are usable at once (no duplicate address detection): 0
ip netns exec router sysctl -qw net.ipv6.conf.all.accept_dad=0

# router: addresses are usable at once (no duplicate address detection): 0
ip netns exec router sysctl -qw net.ipv6.conf.default.accept_dad=0

# router: pinned, since the result may depend on it: 0
ip netns exec router sysctl -qw net.ipv6.conf.default.addr_gen_mode=0

# router: no router advertisements are taken: 0
ip netns exec router sysctl -qw net.ipv6.conf.default.accept_ra=0

# router: no router is asked for: 0
ip netns exec router sysctl -qw net.ipv6.conf.default.router_solicitations=0

# router: forwards IPv4: 1
ip netns exec router sysctl -qw net.ipv4.ip_forward=1

# router: forwards IPv6: 1
ip netns exec router sysctl -qw net.ipv6.conf.all.forwarding=1

# server: addresses are usable at once (no duplicate address detection): 0
ip netns exec server sysctl -qw net.ipv6.conf.all.accept_dad=0

# server: addresses are usable at once (no duplicate address detection): 0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_dad=0

# server: pinned, since the result may depend on it: 0
ip netns exec server sysctl -qw net.ipv6.conf.default.addr_gen_mode=0

# server: no router advertisements are taken: 0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_ra=0

# server: no router is asked for: 0
ip netns exec server sysctl -qw net.ipv6.conf.default.router_solicitations=0

# a cable between client and router: a veth pair, MTU 1500
ip link add name to-router netns client address 00:00:5e:00:53:01 mtu 1500 type veth peer name to-client netns router address 00:00:5e:00:53:02 mtu 1500

# a cable between server and router: a veth pair, MTU 1500
ip link add name to-router netns server address 00:00:5e:00:53:03 mtu 1500 type veth peer name to-server netns router address 00:00:5e:00:53:04 mtu 1500

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
ip -n router link set dev to-server up

# router: its address
ip -n router address add 198.51.100.2/24 dev to-server

# router: its address, usable at once (no duplicate address detection)
ip -n router address add 2001:db8:2::2/64 dev to-server nodad

# server: the interface is up
ip -n server link set dev lo up

# server: the interface is up
ip -n server link set dev to-router up

# server: its address
ip -n server address add 198.51.100.1/24 dev to-router

# server: its address, usable at once (no duplicate address detection)
ip -n server address add 2001:db8:2::1/64 dev to-router nodad

# server: the way to everywhere else
ip -n server route add 0.0.0.0/0 proto static via 198.51.100.2 dev to-router

# server: the way to everywhere else
ip -n server route add ::/0 proto static via 2001:db8:2::2 dev to-router

