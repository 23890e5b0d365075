#!/bin/sh
# tests/larval/test_held_route.py::test_the_route_of_a_held_packet_is_freed_with_its_host
# The hosts of this case as network namespaces, with the commands that a person would type. Needs root and iproute2.
#     sh setup.sh            builds it
#     sh setup.sh down       takes it down
set -e

if [ "$1" = down ]; then
    for host in none; do ip netns delete "$host"; done
    exit
fi

