"""Flows in nftables' flowtable, the software fast path: what still holds for them, and how long they stay. Source:
Documentation/networking/nf_flowtable.rst; nf_conntrack-sysctl.rst, nf_flowtable_tcp_timeout."""

import re
import socket

import pytest

from fixtures.nat import V4, inbox, to
from fixtures.topologies import NARROW, ROUTED
from netns import deliver, listen
from netns.attempt import refused
from netns.netlink import conntrack
from netns.packets import pmtu

pytestmark = pytest.mark.topology(ROUTED)

PORT = 7000


class FastPath:
    """A router that offloads its TCP and UDP flows. `nat` are commands of nft(8) for its table "inet fast"."""

    def __init__(self, router, *nat):
        self.router = router
        devices = ", ".join(interface.name for interface in router.interfaces.values())
        router.nft("\n".join((
            "add table inet fast", f"add flowtable inet fast flows {{ hook ingress priority 0; devices = {{ {devices} }}; }}",
            "add chain inet fast forward { type filter hook forward priority 0; }", "add rule inet fast forward counter",
            "add rule inet fast forward meta l4proto { tcp, udp } flow add @flows", *nat)))

    def slow(self):
        """The packets that the forward chain has seen so far."""
        return int(re.search(r"packets (\d+)", self.router.nft("list chain inet fast forward"))[1])


def offloaded(tracker, protocol="tcp"):
    return [line for family in ("ipv4", "ipv6") for line in tracker.listing("-f", family, "-p", protocol) if "[OFFLOAD]" in line]


def connect(client, server, family, asked=None):
    """An established connection that has carried data both ways twice, so that the flow is in the table."""
    listener = listen(server, family)
    conn = client.socket(family)
    conn.settimeout(5)
    conn.connect(asked(listener) if asked else listener.getsockname()[:2])
    peer = server.adopt(listener.accept()[0])
    for _ in range(2):
        deliver(conn, peer, 10)
        deliver(peer, conn, 10)
    return conn, peer


def masquerade(*extra):
    return ("add chain inet fast post { type nat hook postrouting priority 100; }",
            "add rule inet fast post oifname to-server masquerade", *extra)


def test_offloaded_packets_pass_the_rules_by_and_are_still_forwarded_as_a_router_does(net, family):
    """nf_flowtable.rst: from the ingress hook to the neighbour, past the forward chain; the hop limit is reduced by one as ever
    (RFC 1812, 5.3.1; RFC 8200, 3)."""
    client, router, server = net.nodes("client", "router", "server")
    fast = FastPath(router)
    with conntrack.tracking(router) as tracker:
        conn, peer = connect(client, server, family)
        assert len(offloaded(tracker)) == 1
        slow = fast.slow()
        with server.capture("tcp") as packets:
            deliver(conn, peer, 5000)
            deliver(peer, conn, 5000)

    assert fast.slow() == slow
    assert {packet.ip.ttl if family == V4 else packet.ip.hlim for packet in packets.received()} == {63}


def test_offloaded_flow_is_translated_in_both_directions(net, family):
    """The flow keeps the translation of its connection (nf_flowtable.rst): masquerade and DNAT at the same time, checksums included."""
    client, router, server = net.nodes("client", "router", "server")
    near, there = router.address(family), server.address(family)
    fast = FastPath(router, *masquerade("add chain inet fast pre { type nat hook prerouting priority -100; }"))
    with conntrack.tracking(router) as tracker:
        def asked(listener):
            router.nft(f"add rule inet fast pre tcp dport {PORT} dnat {'ip' if family == V4 else 'ip6'} to "
                       f"{to(there, listener.getsockname()[1])}")
            return near, PORT

        conn, peer = connect(client, server, family, asked)
        assert len(offloaded(tracker)) == 1
        slow = fast.slow()
        with server.capture("tcp") as far_side, client.capture("tcp") as near_side:
            deliver(conn, peer, 5000)
            deliver(peer, conn, 5000)

    assert fast.slow() == slow
    assert {packet.source for packet in far_side.received()} == {router.address(family, "server")}
    assert {packet.source for packet in near_side.received()} == {near}


@pytest.mark.virtual_clock("half a minute passes")
def test_idle_flow_leaves_the_table_after_30_s_and_comes_back(net, family, clock):
    """nf_flowtable_tcp_timeout, 30 s by default, and the collector runs each second. The connection itself stays; its next packet goes by
    the rules, and offloads it again."""
    client, router, server = net.nodes("client", "router", "server")
    fast = FastPath(router)
    with conntrack.tracking(router) as tracker:
        conn, peer = connect(client, server, family)
        clock.sleep(28)
        assert len(offloaded(tracker)) == 1
        clock.sleep(5)
        assert len(offloaded(tracker)) == 0
        assert len(tracker.entries(family)) == 1
        slow = fast.slow()
        deliver(conn, peer, 10)
        deliver(peer, conn, 10)

        assert fast.slow() > slow
        assert len(offloaded(tracker)) == 1


@pytest.mark.virtual_clock("a minute passes")
def test_traffic_keeps_a_flow_in_the_table(net, family, clock):
    """Each packet of either direction renews it: a packet every 20 s for a minute never meets the rules."""
    client, router, server = net.nodes("client", "router", "server")
    fast = FastPath(router)
    conn, peer = connect(client, server, family)
    slow = fast.slow()
    for sender, receiver in ((conn, peer), (peer, conn), (conn, peer)):
        clock.sleep(20)
        deliver(sender, receiver, 10)

    assert fast.slow() == slow


@pytest.mark.virtual_clock("minutes pass")
def test_entry_of_an_offloaded_flow_does_not_expire(net, family, clock):
    """The tracker does not see the flow's packets, and must not forget it meanwhile, with its translation: an entry with 200 s left (after
    a day it would have them by itself) is still there after 320 s of traffic, and the rules have seen nothing. Kernels with "netfilter:
    conntrack: rework offload nf_conn timeout extension logic" and without its fix forget it (openwrt #22970, #23611)."""
    client, router, server = net.nodes("client", "router", "server")
    fast = FastPath(router, *masquerade())
    with conntrack.tracking(router) as tracker:
        conn, peer = connect(client, server, family)
        router.run(["conntrack", "-U", "-f", "ipv4" if family == V4 else "ipv6", "-p", "tcp", "--timeout", "200"])
        slow = fast.slow()
        for _ in range(16):
            clock.sleep(20)
            deliver(conn, peer, 10)
            deliver(peer, conn, 10)

        assert (fast.slow(), len(offloaded(tracker))) == (slow, 1)


@pytest.mark.virtual_clock("two minutes pass")
def test_connection_that_ends_leaves_the_table_and_then_the_tracker(net, family, clock):
    """FIN goes by the rules (nf_flowtable.rst): the entry follows the connection's end, instead of staying for days, and is gone after
    nf_conntrack_tcp_timeout_time_wait, 120 s."""
    client, router, server = net.nodes("client", "router", "server")
    FastPath(router)
    with conntrack.tracking(router) as tracker:
        conn, peer = connect(client, server, family)
        assert len(offloaded(tracker)) == 1
        conn.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b""
        peer.close()
        assert conn.recv(1) == b""
        clock.sleep(2)
        assert len(offloaded(tracker)) == 0
        clock.sleep(130)

        assert list(tracker.entries(family)) == []


@pytest.mark.topology(NARROW)
def test_datagram_too_big_for_an_offloaded_flow_is_answered(net, family):
    """What exceeds the MTU leaves the fast path, so that the sender learns the path MTU (RFC 1191, RFC 8201)."""
    client, router, server = net.nodes("client", "router", "server")
    fast = FastPath(router)
    ours, theirs = client.socket(family, socket.SOCK_DGRAM), inbox(server, family, PORT)
    pmtu.never_fragment(ours)
    ours.settimeout(5)
    ours.connect((server.address(family), PORT))
    for _ in range(3):
        ours.send(b"x")
        theirs.sendto(b"y", theirs.recvfrom(10)[1])
        ours.recv(10)
    slow = fast.slow()
    ours.send(b"x")
    theirs.recv(10)
    assert fast.slow() == slow
    with client.capture("icmp" if family == V4 else "icmpv6") as packets:
        ours.send(bytes(1452))
        packets.until("the error", lambda seen: [each for each in seen.received() if each.icmp[0] in (2, 3)], within=5)

    with refused("EMSGSIZE", "a datagram larger than the path"):
        ours.send(bytes(1452))
    assert pmtu.of_socket(ours) == 1400


def test_offloaded_flow_goes_to_the_neighbours_new_mac(net, family):
    """A neighbour that moves, as a gateway of VRRP does: the flow goes where the neighbour table says, with the next packet."""
    client, router, server = net.nodes("client", "router", "server")
    fast = FastPath(router)
    conn, peer = connect(client, server, family)
    slow, moved = fast.slow(), "00:00:5e:00:53:99"
    server.run(["ip", "link", "set", "to-router", "address", moved])
    router.run(["ip", "neigh", "replace", server.address(family), "lladdr", moved, "dev", "to-server", "nud", "reachable"])
    with router.capture("tcp") as packets:
        deliver(conn, peer, 10)

    assert {packet.layers.dst for packet in packets.sent() if packet.source == client.address(family) and packet.interface == "to-server"} \
        == {moved}
    assert fast.slow() == slow


def test_flowtable_counts_for_the_connection_if_it_is_told_to(net, family):
    """nft(8), flowtable with "counter": the tracker's counters go on (nf_conntrack_acct), as accounting needs."""
    client, router, server = net.nodes("client", "router", "server")
    router.nft("\n".join((
        "add table inet fast",
        "add flowtable inet fast flows { hook ingress priority 0; devices = { to-client, to-server }; counter; }",
        "add chain inet fast forward { type filter hook forward priority 0; }", "add rule inet fast forward counter",
        "add rule inet fast forward meta l4proto tcp flow add @flows")))
    with conntrack.tracking(router) as tracker:
        conn, peer = connect(client, server, family)

        def counted():
            return [int(number) for number in re.findall(r"packets=(\d+)", offloaded(tracker)[0])]

        before, slow = counted(), int(re.search(r"packets (\d+)", router.nft("list chain inet fast forward"))[1])
        for _ in range(5):
            deliver(conn, peer, 10)
            deliver(peer, conn, 10)

        assert int(re.search(r"packets (\d+)", router.nft("list chain inet fast forward"))[1]) == slow
        assert [after - earlier >= 5 for after, earlier in zip(counted(), before)] == [True, True]
