"""Connections and their end, segments of one's own making, and a tracker that watches."""

import socket

import pytest

import netns
from fixtures.topologies import ROUTED
from netns.netlink import conntrack
from netns.packets import segment
from netns.traffic.closing import Service, fence, states, time_waits


@pytest.fixture(params=(socket.AF_INET, socket.AF_INET6), ids=("ipv4", "ipv6"))
def family(request):
    return request.param


@pytest.fixture
def service(family):
    with netns.build(ROUTED, capture=True) as network:
        client, server, router = network.nodes("client", "server", "router")
        it = Service(client, server, netns.listen(server, family))
        it.router = router
        yield it


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_closed_connection_tells_its_numbers(service, first):
    closed = service.closed(first, data=b"hello")

    assert (closed.holder.role, time_waits(closed.holder), states(closed.peer)) == (first, 1, [])
    assert states(closed.holder) == ["TIME_WAIT"]
    # The FIN that comes again is known by them.
    [answer] = closed.answers("FA", seq=-1, tsval=0)
    assert (answer.flags, answer.seq, answer.ack) == ("A", closed.snd_nxt, closed.rcv_nxt)


def test_a_connection_begins_with_the_number_that_was_chosen(service):
    with service.client.capture("tcp") as packets:
        service.connect(port=40000, isn=-1)

    syn = packets.packets()[0]
    assert (syn.flags, syn.seq, syn.tcp.sport) == ("S", 2**32 - 1, 40000)


def test_a_segment_is_sent_as_described(service):
    source = service.client.address(service.family), 1000
    with service.server.capture("tcp") as packets:
        segment.send(service.client, source, service.address, "PA", 7, -1, timestamps=(-2, 5), payload=b"hello")
        fence(service.client, service.server, service.address[0])

    sent, reset = packets
    assert (sent.flags, sent.seq, sent.ack, sent.length) == ("PA", 7, 2**32 - 1, 5)
    assert (sent.timestamps, sent.tcp.sport) == ((2**32 - 2, 5), 1000)
    # A reset answers what has a right checksum, and it carries no timestamps.
    assert (reset.flags, reset.timestamps) == ("R", None)


def test_a_rule_for_resets_drops_nothing_else(service):
    with netns.firewall.drop_resets(service.server, service.client.address(service.family)) as dropped:
        conn, peer = service.connect()
        netns.deliver(conn, peer, 100)
        assert dropped.packets() == 0
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        conn.close()
        fence(service.client, service.server, service.address[0])
        assert (dropped.packets(), states(service.server)) == (1, ["ESTABLISHED"])


def test_a_tracker_lists_counts_and_forgets(service):
    with conntrack.tracking(service.router) as tracker:
        conn, _peer = service.connect()
        [entry] = tracker.entries(service.family)
        assert (entry.state, entry.assured, entry.packets) == ("ESTABLISHED", True, (2, 1))
        assert entry.ports == (conn.getsockname()[1], service.address[1])
        assert entry.timeout <= tracker.timeout("ESTABLISHED")
        assert (tracker.count(), tracker.invalid()) == (1, 0)

        tracker.flush()
        assert (tracker.entries(service.family), tracker.count()) == ([], 0)


def test_a_sysctl_that_a_kernel_lacks_is_named(service):
    with conntrack.tracking(service.router) as tracker, pytest.raises(netns.MissingFeature, match="no_such"):
        tracker.pin(no_such=1)
