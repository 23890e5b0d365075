"""Many flows over a route with two paths, each of which is told that its packets are too large: does each learn it?"""

import socket

import pytest

from fixtures.table import Table
from fixtures.topologies import ROUTED

pytestmark = pytest.mark.topology(ROUTED)

FAMILIES = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}
HOLDERS = ("multipath route", "nexthop group")
FLOWS, LEARNED = 24, 1300
# net.ipv4.fib_multipath_hash_policy, net.ipv6.fib_multipath_hash_policy: ip-sysctl.rst.
POLICIES = {"layer 3": 0, "layer 4": 1, "layer 3 or inner layer 3": 2}
ONE, MANY = "to one destination", "to as many destinations"
# Under the other policies all flows to one destination take one path.
KINDS = [(policy, where) for policy in POLICIES for where in (ONE, MANY) if where == MANY or policy == "layer 4"]

TABLE = Table("pmtu.flows", "family, what holds the path MTU", "hash policy, flows", "RFC 1191, 3; RFC 8201, 4", {
    f"{name}, {holder}": {f"{policy}, {FLOWS} flows {where}": f"all learn {LEARNED}" for policy, where in KINDS}
    for name in FAMILIES for holder in HOLDERS})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_each_flow_over_two_paths_learns_its_path_mtu(net, destinations, row, table):
    """Each UDP socket is told of its own packet. Chance chooses the path of each, so of 24 that learn on one path only some would."""
    name, holder = row.split(", ")
    cells = destinations(FAMILIES[name], holder, len(POLICIES) * FLOWS + 1)
    for column in table:
        policy, _, flows = column.partition(", ")
        net["client"].pin({f"net.{ip}.fib_multipath_hash_policy": POLICIES[policy] for ip in ("ipv4", "ipv6")})
        learned = []
        for flow in range(FLOWS):
            if flow and flows.endswith(ONE):
                cells.open()
            else:
                cells.next()
            cells.tell(LEARNED)
            learned.append(cells.told() == LEARNED)
        table.saw(f"all learn {LEARNED}" if all(learned) else "some learn" if any(learned) else "none learns")
