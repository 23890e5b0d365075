"""A firewall on the way: the hop that it is, and what is behind it (ip_forward(): TTL first, then the forward hook)."""


import pytest

from fixtures.icmp_errors import ADMIN_PROHIBITED, ECHO_REPLY, PORT_UNREACHABLE, TIME_EXCEEDED
from fixtures.topologies import NARROW
from netns.packets.probe import KINDS

pytestmark = pytest.mark.topology(NARROW)

NFT_PROTOCOL = {"udp": "udp dport 33434", "tcp": "tcp dport 33434"}


@pytest.fixture
def firewall(net):
    """firewall(kind, verdict, hook): the first router does this to probes of the kind; returns what it has counted."""
    router = net["router"]

    def rule(kind, verdict, hook="forward"):
        router.run(["nft", "-f", "-"], stdin=f"""
            add table inet kdrift
            add chain inet kdrift probes {{ type filter hook {hook} priority 0; }}
            add rule inet kdrift probes {NFT_PROTOCOL[kind]} counter {verdict}
        """)
        return lambda: int(router.run(["nft", "list", "table", "inet", "kdrift"]).split("packets ")[1].split()[0])

    return rule


@pytest.mark.parametrize("kind", NFT_PROTOCOL)
@pytest.mark.parametrize("verdict", ["drop", "reject with icmpx type admin-prohibited"])
def test_the_firewall_itself_is_a_hop(net, family, tracer, firewall, kind, verdict):
    """With TTL 1 the probe expires before the forward hook sees it: time exceeded, from the firewall."""
    count = firewall(kind, verdict)
    _sent, answer = tracer.probe(kind, net["server"].address(family), 1)

    assert (answer.source, answer.kind) == (net["router"].address(family, "client"), TIME_EXCEEDED[family])
    assert count() == 0


@pytest.mark.parametrize("kind", NFT_PROTOCOL)
@pytest.mark.parametrize("ttl", [2, 3])
def test_behind_a_dropping_firewall_nothing_is_seen(net, family, tracer, firewall, kind, ttl):
    """No answer from any hop after it; another kind of probe, sent later, gets through."""
    count = firewall(kind, "drop")

    assert tracer.unanswered(kind, net["server"].address(family), ttl)
    assert count() == 1


@pytest.mark.parametrize("kind", NFT_PROTOCOL)
@pytest.mark.parametrize("ttl", [2, 3])
def test_a_rejecting_firewall_answers_for_all_behind_it(net, family, tracer, firewall, kind, ttl):
    """Admin prohibited (traceroute's !X) from the firewall's address, whatever TTL is left."""
    count = firewall(kind, "reject with icmpx type admin-prohibited")
    _sent, answer = tracer.probe(kind, net["server"].address(family), ttl)

    assert (answer.source, answer.kind) == (net["router"].address(family, "client"), ADMIN_PROHIBITED[family])
    assert count() == 1


def test_a_firewall_that_resets_speaks_for_the_server(net, family, tracer, firewall):
    """The reset has the server's address: to a TCP probe the firewall looks like the end of the path."""
    firewall("tcp", "reject with tcp reset")
    _sent, answer = tracer.probe("tcp", net["server"].address(family), 2)

    assert (answer.source, answer.kind) == (net["server"].address(family), "RA")


@pytest.mark.parametrize("kind", NFT_PROTOCOL)
def test_a_firewall_before_routing_hides_its_own_hop(net, family, tracer, firewall, kind):
    """Dropped in prerouting, a probe never gets to where its TTL counts."""
    count = firewall(kind, "drop", hook="prerouting")

    assert tracer.unanswered(kind, net["server"].address(family), 1)
    assert count() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_probes_that_the_firewall_lets_through(net, family, tracer, firewall, kind):
    """A rule against one kind leaves the others their path."""
    other = {"udp": "tcp", "tcp": "udp", "icmp": "udp"}[kind]
    firewall(other, "drop")
    server, far = net.nodes("server", "far-router")
    path = [tracer.probe(kind, server.address(family), ttl)[1] for ttl in (2, 3)]

    end = {"udp": PORT_UNREACHABLE[family], "tcp": "RA", "icmp": ECHO_REPLY[family]}[kind]
    assert [(hop.source, hop.kind) for hop in path] == [
        (far.address(family, "router"), TIME_EXCEEDED[family]), (server.address(family), end)]
