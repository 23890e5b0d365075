"""A firewall on the path: its own hop, and the hops behind it (ip_forward(): TTL first, then the forward hook)."""


import pytest

from fixtures.icmp_errors import ADMIN_PROHIBITED, ECHO_REPLY, PORT_UNREACHABLE, TIME_EXCEEDED
from fixtures.topologies import NARROW
from netns.packets.probe import KINDS

pytestmark = pytest.mark.topology(NARROW)

NFT_PROTOCOL = {"udp": "udp dport 33434", "tcp": "tcp dport 33434"}


@pytest.fixture
def firewall(net):
    """firewall(kind, verdict, hook): the first router applies the verdict to these probes; returns its counter."""
    router = net["router"]

    def rule(kind, verdict, hook="forward"):
        router.nft(f"""
            add table inet kdrift
            add chain inet kdrift probes {{ type filter hook {hook} priority 0; }}
            add rule inet kdrift probes {NFT_PROTOCOL[kind]} counter {verdict}
        """)
        return lambda: int(router.nft("list table inet kdrift").split("packets ")[1].split()[0])

    return rule


@pytest.mark.parametrize("kind", NFT_PROTOCOL)
@pytest.mark.parametrize("verdict", ["drop", "reject with icmpx type admin-prohibited"])
def test_ttl_is_checked_before_the_forward_hook(net, family, tracer, firewall, kind, verdict):
    """With TTL 1 the firewall sends time exceeded, and its rule counts nothing."""
    count = firewall(kind, verdict)
    _sent, answer = tracer.probe(kind, net["server"].address(family), 1)

    assert (answer.source, answer.kind) == (net["router"].address(family, "client"), TIME_EXCEEDED[family])
    assert count() == 0


@pytest.mark.parametrize("kind", NFT_PROTOCOL)
@pytest.mark.parametrize("ttl", [2, 3])
def test_hops_behind_a_dropping_firewall_do_not_answer(net, family, tracer, firewall, kind, ttl):
    """No answer to TTL 2 and 3; a later probe of another kind gets through."""
    count = firewall(kind, "drop")

    assert tracer.unanswered(kind, net["server"].address(family), ttl)
    assert count() == 1


@pytest.mark.parametrize("kind", NFT_PROTOCOL)
@pytest.mark.parametrize("ttl", [2, 3])
def test_rejecting_firewall_answers_for_the_hops_behind_it(net, family, tracer, firewall, kind, ttl):
    """Admin prohibited (traceroute's !X) from the firewall's address, for TTL 2 and 3."""
    count = firewall(kind, "reject with icmpx type admin-prohibited")
    _sent, answer = tracer.probe(kind, net["server"].address(family), ttl)

    assert (answer.source, answer.kind) == (net["router"].address(family, "client"), ADMIN_PROHIBITED[family])
    assert count() == 1


def test_reject_with_tcp_reset_comes_from_the_servers_address(net, family, tracer, firewall):
    """To a TCP probe the firewall looks like the end of the path."""
    firewall("tcp", "reject with tcp reset")
    _sent, answer = tracer.probe("tcp", net["server"].address(family), 2)

    assert (answer.source, answer.kind) == (net["server"].address(family), "RA")


@pytest.mark.parametrize("kind", NFT_PROTOCOL)
def test_drop_in_prerouting_hides_the_firewalls_own_hop(net, family, tracer, firewall, kind):
    """Prerouting drops the probe before the TTL check."""
    count = firewall(kind, "drop", hook="prerouting")

    assert tracer.unanswered(kind, net["server"].address(family), 1)
    assert count() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_drop_rule_for_one_protocol_does_not_affect_others(net, family, tracer, firewall, kind):
    """Probes of others reach the next router and the server."""
    other = {"udp": "tcp", "tcp": "udp", "icmp": "udp"}[kind]
    firewall(other, "drop")
    server, far = net.nodes("server", "far-router")
    path = [tracer.probe(kind, server.address(family), ttl)[1] for ttl in (2, 3)]

    end = {"udp": PORT_UNREACHABLE[family], "tcp": "RA", "icmp": ECHO_REPLY[family]}[kind]
    assert [(hop.source, hop.kind) for hop in path] == [
        (far.address(family, "router"), TIME_EXCEEDED[family]), (server.address(family), end)]
