#!/bin/sh
# A script that knows nothing of kdrift: how long a neighbour that does not answer is looked for. Results are in TAP.
ip link add name here type veth peer name there
ip address add 192.0.2.1/24 dev here
ip link set here up
ip link set there up

echo 1..2
begin=$(cut -d ' ' -f 1 /proc/uptime)
if ping -c 1 -W 60 192.0.2.2 > "$KDRIFT_OUT/ping"; then echo "not ok 1 nobody answers"; else echo "ok 1 nobody answers"; fi
end=$(cut -d ' ' -f 1 /proc/uptime)
echo "# kdrift-measure: neighbour.given_up_after $(echo "$end - $begin" | bc) s 0.1"
if ip neighbour show 192.0.2.2 | grep -q FAILED; then echo "ok 2 the neighbour has failed"; else echo "not ok 2 the neighbour has failed"; fi
