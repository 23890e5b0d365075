#!/bin/sh
# tests/conntrack/test_limit.py::test_no_more_connections_come_about_than_the_limit_allows[ipv4-localhost-connlimit]
# The hosts of this case as network namespaces, with the commands that a person would type. Needs root and iproute2.
#     sh setup.sh            builds it
#     sh setup.sh down       takes it down
set -e

if [ "$1" = down ]; then
    for host in client server; do ip netns delete "$host"; done
    exit
fi

# host client
ip netns add client

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

