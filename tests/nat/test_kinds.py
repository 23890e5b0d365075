"""SNAT, MASQUERADE, DNAT and REDIRECT: whom each end sees. Source: iptables-extensions(8); nft(8), NAT statements; RFC 3022, 4."""

import socket
import struct

import pytest

from fixtures.nat import INSIDE, V4, exchange, inbox, seen, to, translate, waiting
from netns import CommandError, deliver, firewall, missing_feature
from netns.attempt import refused
from netns.netlink import conntrack
from netns.packets import segment
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(INSIDE)

PORT, CLIENT_PORT = 7000, 40000
SO_ORIGINAL_DST = 80                        # include/uapi/linux/netfilter_ipv4.h, and of IPv6


def accepted(host, listener):
    listener.settimeout(5)
    return host.adopt(listener.accept()[0])


def listener_at(host, family, port, address=""):
    listener = host.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen()
    return listener


@pytest.mark.parametrize("flavour", firewall.FLAVOURS)
def test_rules_of_each_tool_translate_what_both_ends_see(net, family, flavour):
    """SNAT and MASQUERADE change whom the server sees, DNAT and REDIRECT who answers; the client goes on with the address that it
    asked (RFC 3022, 4.1)."""
    client, router, server = net.nodes("client", "router", "server")
    near, far, there = router.address(family), router.address(family, "server"), server.address(family)
    if flavour == "nft":
        translate(router, family, f"postrouting tcp dport 7000 snat to {to(far, 4000)}", "postrouting tcp dport 7001 masquerade to :4001",
                  f"prerouting tcp dport 7002 dnat to {to(there, 7102)}", "prerouting tcp dport 7003 redirect to :7103")
    else:
        tool = flavour if family == V4 else flavour.replace("ip", "ip6", 1)
        lines = [f"-A POSTROUTING -p tcp --dport 7000 -j SNAT --to-source {to(far, 4000)}",
                 "-A POSTROUTING -p tcp --dport 7001 -j MASQUERADE --to-ports 4001",
                 f"-A PREROUTING -p tcp --dport 7002 -j DNAT --to-destination {to(there, 7102)}",
                 "-A PREROUTING -p tcp --dport 7003 -j REDIRECT --to-ports 7103"]
        try:
            router.run([f"{tool}-restore", "-w"], stdin="\n".join(["*nat", *lines, "COMMIT"]) + "\n")
        except CommandError as error:
            raise missing_feature(f"{flavour} does not support NAT", error) from error

    found = {}
    for asked, (answering, at) in {(there, 7000): (server, 7000), (there, 7001): (server, 7001), (near, 7002): (server, 7102),
                                   (there, 7003): (router, 7103)}.items():
        listener = listener_at(answering, family, at)
        conn = client.socket(family)
        conn.settimeout(5)
        conn.connect(asked)
        peer = accepted(answering, listener)
        deliver(conn, peer, 10)
        deliver(peer, conn, 10)
        assert conn.getpeername()[:2] == asked
        kept = peer.getpeername()[1] == conn.getsockname()[1]
        found[asked] = peer.getpeername()[0], "same port" if kept else peer.getpeername()[1], peer.getsockname()[:2]

    ours = client.address(family)
    assert found == {(there, 7000): (far, 4000, (there, 7000)), (there, 7001): (far, 4001, (there, 7001)),
                     (near, 7002): (ours, "same port", (there, 7102)), (there, 7003): (ours, "same port", (near, 7103))}


def test_rule_decides_for_the_first_packet_of_a_connection_alone(net, family):
    """The chain sees one packet of a connection (nft(8), chain type nat: "only the first packet of a connection actually traverses").
    So a connection outlives its rule, and the next one goes without, as long as anything else makes the host track and translate."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, "postrouting oifname to-server udp dport 7000 counter masquerade", "output udp dport 9 redirect")
    target = server.address(family), PORT
    ours, theirs = inbox(client, family), inbox(server, family, PORT)
    first = exchange(ours, theirs, target)
    assert exchange(ours, theirs, target) == first
    chain = f"chain {'ip' if family == V4 else 'ip6'} nat postrouting"
    assert "packets 1 " in router.nft(f"list {chain}")
    router.nft(f"flush {chain}")

    assert (first[0], exchange(ours, theirs, target)) == (router.address(family, "server"), first)
    assert exchange(inbox(client, family), theirs, target)[0] == client.address(family)


def test_rule_that_comes_later_does_not_change_a_flow_that_exists(net, family):
    """UDP that began before the DNAT rule goes on to where it went until the entry ends or is deleted: what load balancers of UDP
    services must clear (kubernetes #48370, #139628)."""
    client, router, server = net.nodes("client", "router", "server")
    ours, old, new = inbox(client, family), inbox(server, family, PORT), inbox(server, family, PORT + 1)
    target = server.address(family), PORT
    with conntrack.tracking(router) as tracker:
        exchange(ours, old, target)
        translate(router, family, f"prerouting udp dport {PORT} dnat to {to(target[0], PORT + 1)}")
        exchange(ours, old, target)
        assert waiting([new]) == [False]
        tracker.flush()

        exchange(ours, new, target)
    assert waiting([old]) == [False]


def test_packets_that_are_not_tracked_are_not_translated(net, family):
    """nft(8), notrack: NAT works on what is tracked; iptables-extensions(8), NOTRACK."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, "postrouting oifname to-server masquerade")
    router.nft("add table inet raw\nadd chain inet raw pre { type filter hook prerouting priority -300; }\n"
               f"add rule inet raw pre udp dport {PORT} notrack")
    inboxes = inbox(server, family, PORT), inbox(server, family, PORT + 1)
    sources = [seen(inbox(client, family), each, (server.address(family), PORT + number))[0] for number, each in enumerate(inboxes)]

    assert sources == [client.address(family), router.address(family, "server")]


def test_segment_in_no_connection_leaves_untranslated(net, family):
    """What the tracker calls invalid has no entry, so no rule of NAT applies, and the inner address leaks: rules drop it
    (kubernetes #74839). An ACK is invalid with nf_conntrack_tcp_loose=0, nf_conntrack-sysctl.rst."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, "postrouting oifname to-server masquerade")
    with conntrack.tracking(router) as tracker, server.capture("tcp") as packets:
        tracker.pin(tcp_loose=0)
        ends = (client.address(family), CLIENT_PORT), (server.address(family), PORT)
        segment.send(client, *ends, "A", seq=1000, ack=1)
        fence(client, server, ends[1][0])
        assert tracker.invalid() == 2       # and the server's RST
        tracker.pin(tcp_loose=1)
        segment.send(client, (ends[0][0], CLIENT_PORT + 1), ends[1], "A", seq=1000, ack=1)
        fence(client, server, ends[1][0])

    assert [packet.source for packet in packets.received()] == [ends[0][0], router.address(family, "server")]


def test_connection_survives_a_flushed_table_where_the_port_can_be_kept(net, family):
    """The tracker picks a connection up in its middle (nf_conntrack_tcp_loose=1, nf_conntrack-sysctl.rst), and the rule gives it the same
    port again: a router may lose its entries while the client sends."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, "postrouting oifname to-server masquerade")
    with conntrack.tracking(router) as tracker:
        listener = listener_at(server, family, PORT)
        conn = client.socket(family)
        conn.connect((server.address(family), PORT))
        peer = accepted(server, listener)
        assert peer.getpeername()[0] == router.address(family, "server")
        tracker.flush()

        deliver(conn, peer, 10)
        deliver(peer, conn, 10)


def test_client_reaches_itself_through_its_public_address(net, family):
    """Hairpinning takes both: DNAT to the inner address, and SNAT so that the answer comes back through the router (RFC 4787, REQ-9;
    RFC 5382, REQ-8; kube-router #9, plugins #68). The client sees the router on both ends of the connection."""
    client, router = net.nodes("client", "router")
    inner, outer = client.address(family), router.address(family, "server")
    ip = "ip" if family == V4 else "ip6"
    # The packets leave by the link by which they came, which is not worth a redirect.
    router.pin({"net.ipv4.conf.all.send_redirects": 0, "net.ipv4.conf.to-client.send_redirects": 0})
    translate(router, family, f"prerouting {ip} daddr {outer} tcp dport {PORT} dnat to {to(inner, PORT)}",
              f"postrouting oifname to-client {ip} saddr {inner} masquerade")
    listener = listener_at(client, family, PORT)
    conn = client.socket(family)
    conn.settimeout(5)
    conn.connect((outer, PORT))
    peer = accepted(client, listener)

    deliver(conn, peer, 10)
    deliver(peer, conn, 10)
    assert (conn.getpeername()[0], peer.getpeername()[0]) == (outer, router.address(family))


def test_redirected_connection_of_the_host_itself_tells_where_it_was_going(net, family):
    """SO_ORIGINAL_DST is the destination before REDIRECT in the output chain, what a transparent proxy asks for (nf_getorigdst())."""
    client, server = net.nodes("client", "server")
    translate(client, family, f"output tcp dport {PORT} redirect to :15001")
    listener = listener_at(client, family, 15001)
    conn = client.socket(family)
    conn.settimeout(5)
    conn.connect((server.address(family), PORT))
    peer = accepted(client, listener)

    level = socket.IPPROTO_IP if family == V4 else socket.IPPROTO_IPV6
    packed = peer.getsockopt(level, SO_ORIGINAL_DST, 28)
    address = packed[4:8] if family == V4 else packed[8:24]
    assert (socket.inet_ntop(family, address), *struct.unpack_from("!H", packed, 2)) == (server.address(family), PORT)


def test_loopback_is_reached_from_outside_only_with_route_localnet(net):
    """DNAT to 127.0.0.1: a martian destination unless route_localnet=1, ip-sysctl.rst (kubernetes #92315)."""
    client, router = net.nodes("client", "router")
    router.pin({"net.ipv4.conf.to-client.log_martians": 0})
    translate(router, V4, f"prerouting udp dport {PORT} dnat to 127.0.0.1:{PORT}")
    local = inbox(router, V4, PORT, "127.0.0.1")
    ours = inbox(client, V4)
    target = router.address(V4), PORT
    ours.sendto(b"lost", target)
    fence(client, router, target[0])
    assert waiting([local]) == [False]
    router.pin({"net.ipv4.conf.to-client.route_localnet": 1})

    exchange(inbox(client, V4), local, target)


def test_prefixes_are_mapped_one_to_one(net, family):
    """NETMAP keeps the host part of each address, and the port: iptables-extensions(8)."""
    client, router, server = net.nodes("client", "router", "server")
    tool, outer = ("iptables-legacy", "198.18.7.0/24") if family == V4 else ("ip6tables-legacy", "2001:db8:77::/64")
    router.run([tool, "-w", "-t", "nat", "-A", "POSTROUTING", "-o", "to-server", "-j", "NETMAP", "--to", outer])
    theirs, base = inbox(server, family, PORT), client.address(family)[:-1]
    found = []
    for last in ("1", "7", "9"):
        if last != "1":
            client.add_address(f"{base}{last}/{24 if family == V4 else 64}", "router")
        ours = inbox(client, family, CLIENT_PORT, f"{base}{last}")
        found.append(exchange(ours, theirs, (server.address(family), PORT)))

    mapped = outer.partition("/")[0]
    prefix = mapped[:-1] if family == V4 else mapped
    assert found == [(f"{prefix}{last}", CLIENT_PORT) for last in ("1", "7", "9")]


def test_dnat_by_a_map_sends_new_flows_to_each_server_in_turn(net, family):
    """numgen inc (nft(8)): flows alternate, and each stays where it began, also from the same client."""
    client, router, server = net.nodes("client", "router", "server")
    there, near = server.address(family), router.address(family)
    translate(router, family, f"prerouting udp dport {PORT} dnat to {there}:numgen inc mod 2 map {{ 0 : 7100, 1 : 7101 }}"
              if family == V4 else
              f"prerouting udp dport {PORT} dnat to [{there}]:numgen inc mod 2 map {{ 0 : 7100, 1 : 7101 }}")
    servers = [inbox(server, family, port) for port in (7100, 7101)]
    clients = [inbox(client, family) for _ in range(4)]
    for _round in range(3):
        for each in clients:
            each.sendto(b"question", (near, PORT))
    fence(client, server, there)

    taken = [{each.recvfrom(10)[1][1] for _datagram in range(6)} for each in servers]
    assert waiting(servers) == [False, False]
    ports = [each.getsockname()[1] for each in clients]
    assert taken == [set(ports[::2]), set(ports[1::2])]


def test_connection_to_a_translated_port_that_nobody_listens_on_is_refused_at_once(net, family):
    """The server's RST is translated back: ECONNREFUSED from the address that was asked, no timeout (RFC 5382, REQ-10)."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, f"prerouting tcp dport {PORT} dnat to {to(server.address(family), 9)}")
    with client.capture("tcp") as packets, refused("ECONNREFUSED", "a port that is translated to a closed one"):
        conn = client.socket(family)
        conn.settimeout(5)
        conn.connect((router.address(family), PORT))

    assert [packet.source for packet in packets.received()] == [router.address(family)]
    assert server.counter("Tcp.OutRsts") == 1
