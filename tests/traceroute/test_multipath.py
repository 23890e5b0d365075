"""A router with two equal-cost paths: which probe takes which (ip-sysctl.rst, fib_multipath_hash_policy)."""

import socket

import pytest

from fixtures.topologies import FORK
from netns.packets.probe import KINDS, answers, probe

pytestmark = pytest.mark.topology(FORK)

# All of them take the same of two paths by chance once in 8 million times.
MANY = 24
BOTH, ONE = 2, 1


@pytest.fixture
def hops(net, family, fork):
    """hops(probes): how many different routers answer these probes with TTL 2; each is a dict of its `words`."""
    client = net["client"]

    def count(probes):
        with client.capture() as packets:
            for words in probes:
                kind, source = words.pop("kind"), words.pop("source", client.address(family))
                probe(client, kind, source, fork.service, 2, **words)
            packets.until("a response to each probe", lambda seen: len(answers(seen)) == len(probes), within=5)
            found = {answer.source for answer in answers(packets)}
        assert found <= {net[router].address(family, "fork") for router in ("upper", "lower")}
        return len(found)

    return count


def varying(kind, **words):
    """Probes like traceroute's own: each has another source port (for ICMP, another identifier)."""
    return [dict(kind=kind, sport=33000 + number, **words) for number in range(MANY)]


@pytest.mark.parametrize("number, spread", [
    (0, {"udp": ONE, "tcp": ONE, "icmp": ONE}),
    (1, {"udp": BOTH, "tcp": BOTH, "icmp": ONE}),
    (2, {"udp": ONE, "tcp": ONE, "icmp": ONE}),
], ids=("layer3", "layer4", "inner-layer3"))
def test_only_policy_1_spreads_varying_ports(fork, hops, number, spread):
    """Policy 0 and 2 (for packets without a tunnel) hash addresses, 1 also ports; echo requests have none."""
    fork.set_hash_policy(number)
    seen = {kind: hops(varying(kind)) for kind in KINDS}

    assert seen == spread


@pytest.mark.parametrize("number", [0, 1, 2])
def test_constant_flow_stays_on_one_path(fork, hops, number):
    """As Paris traceroute probes: the ports stay the same, the size differs."""
    fork.set_hash_policy(number)
    seen = {kind: hops([dict(kind=kind, sport=33001, size=100 + each) for each in range(MANY)]) for kind in KINDS}

    assert seen == dict.fromkeys(KINDS, ONE)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_policies_0_to_2_spread_varying_source_addresses(fork, hops, number):
    """Each policy hashes addresses."""
    fork.set_hash_policy(number)

    assert hops([dict(kind="udp", source=sender) for sender in fork.add_source_addresses(MANY)]) == BOTH


@pytest.mark.parametrize("fields, hashed", [
    (0x0001, "sources"), (0x0002, "destinations"), (0x0010, "source ports"), (0x0020, "destination ports"), (0x0033, "all fields"),
], ids=["source", "destination", "source-port", "destination-port", "all"])
def test_custom_policy_hashes_only_the_chosen_fields(fork, hops, fields, hashed):
    """Policy 3 (5.14) with fib_multipath_hash_fields: each bit is one field; probes that differ only in others take one path."""
    fork.set_hash_policy(3, fields)
    seen = {varied: hops(probes) for varied, probes in {
        "sources": [dict(kind="udp", source=sender) for sender in fork.add_source_addresses(MANY)],
        "source ports": varying("udp"),
        "destination ports": [dict(kind="udp", dport=33434 + number) for number in range(MANY)],
    }.items()}

    assert seen == {varied: BOTH if hashed in (varied, "all fields") else ONE for varied in seen}


@pytest.mark.parametrize("family", [socket.AF_INET6], ids=["ipv6"], indirect=True)
@pytest.mark.parametrize("fields, spread", [(0x0008, BOTH), (0x0037, ONE)], ids=["label", "others"])
def test_custom_policy_hashes_the_flow_label_by_bit_3_only(fork, hops, family, fields, spread):
    """Bit 3: packets that differ only in the flow label spread (RFC 6438); with 0x0037 they do not."""
    fork.set_hash_policy(3, fields)

    assert hops([dict(kind="udp", label=1 + number) for number in range(MANY)]) == spread


@pytest.mark.parametrize("family", [socket.AF_INET6], ids=["ipv6"], indirect=True)
@pytest.mark.parametrize("state, used", [("reachable", {"upper", "lower"}), ("failed", {"upper"})])
def test_host_avoids_a_nexthop_with_a_failed_neighbour_entry(net, fork, family, state, used):
    """A host (forwarding=0) sends all flows by the first router while the second one's neighbour entry is FAILED
    (rt6_score_route(); RFC 4861, 6.3.6)."""
    host = net["fork"]
    host.pin({"net.ipv6.conf.all.forwarding": 0, "net.ipv6.fib_multipath_hash_policy": 1})
    ways = [word for router in ("upper", "lower")
            for word in ("nexthop", "via", net[router].address(family, "fork"), "dev", f"to-{router}")]
    host.run(["ip", "-6", "route", "replace", fork.service, *ways])
    lower = net["lower"].interfaces["fork"]
    neighbour = [net["lower"].address(family, "fork"), "dev", "to-lower", "lladdr", lower.mac, "nud", state]
    host.run(["ip", "-6", "neighbour", "replace", *neighbour])

    seen = set()
    for _ in range(MANY):
        with host.socket(family, socket.SOCK_DGRAM) as udp:
            udp.connect((fork.service, 9))
            seen.add(udp.getsockname()[0])

    assert seen == {host.address(family, router) for router in used}
