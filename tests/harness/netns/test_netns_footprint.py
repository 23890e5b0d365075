"""Footprints, and the numbers that the report makes of them."""

import pytest

from fixtures.topologies import LAN
from netns import deliver, tcp_pair
from netns.footprint import footprint
from report.traffic import differences, numbers

pytestmark = pytest.mark.topology(LAN)


def taken(net):
    return numbers({role: footprint(host) for role, host in net.hosts.items()})


def test_packets_are_counted_by_kind_and_timed(net, family):
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    deliver(conn, peer, 100)
    found = taken(net)
    syns = [name for name in found if " tcp S seq 0 len 0 mss " in name and not name.endswith(" at")]
    data = [name for name in found if " tcp PA len 100" in name and not name.endswith(" at")]
    assert [name.split()[0] for name in syns + data] == ["client", "client"]
    assert found[syns[0]] == found[data[0]] == 1
    assert found[syns[0] + " at"] <= found[data[0] + " at"] < 10


def test_counters_of_each_host_are_its_own(net, family):
    client, server = net.nodes("client", "server")
    tcp_pair(client, server, family)
    found = taken(net)
    assert (found["client counts Tcp.ActiveOpens"], found["server counts Tcp.PassiveOpens"]) == (1, 1)
    assert "client counts Tcp.PassiveOpens" not in found


def test_two_connections_alike_leave_the_same(net, family):
    """Ports and sequence numbers are not in it."""
    client, server = net.nodes("client", "server")
    seen = []
    for _ in range(2):
        before = taken(net)
        conn, peer = tcp_pair(client, server, family)
        deliver(conn, peer, 100)
        conn.close()
        peer.close()
        after = taken(net)
        seen.append({name: value - before.get(name, 0) for name, value in after.items() if " sends " in name and not name.endswith(" at")})
    assert seen[0] == {name: value for name, value in seen[1].items() if value}


def test_a_time_may_move_as_far_as_a_timer_is_rounded():
    before = {"client sends x": 1, "client sends x at": 10.0}
    assert differences(before, before | {"client sends x at": 11.0}) == {}
    assert set(differences(before, before | {"client sends x at": 12.0})) == {"client sends x at"}
    assert set(differences(before, {})) == set(before)


def test_lines_of_the_kernels_log_are_counted_by_kind():
    """Numbers, addresses and process ids are not in it."""
    assert numbers(log=["audit: audit_lost=1 audit_rate_limit=0", "audit: audit_lost=23 audit_rate_limit=0", "IPv6: 00:5e link 0xff12"]) == {
        "the kernel logs: audit: audit_lost=# audit_rate_limit=#": 2, "the kernel logs: IPv6: #:# link #": 1,
    }
