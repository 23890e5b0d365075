"""Addresses that move to another MAC, and who answers for an address. Source: RFC 4861, 7.2.5 and 7.2.6; RFC 5227, 2.4; ip-sysctl.rst,
arp_accept, arp_ignore, arp_announce, arp_filter, proxy_arp; arp(7)."""

import socket

import pytest

from fixtures.nat import inbox
from fixtures.neighbours import V4, announce, arp, entry, reply, sender_of, set_entry, solicitations, state
from fixtures.topologies import LAN, ROUTED
from netns import at_least, eventually
from netns.attempt import refused
from netns.hosts.sysctl import global_sysctl
from netns.netlink.message import HEADER
from netns.observe.kmsg import KernelLog
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(LAN)

MOVED, DEVICE, PORT = "00:00:5e:00:53:99", "to-server", 7000


def known(client, server, family):
    """The server's address, and its MAC, once the client has an entry for them."""
    fence(client, server, server.address(family))
    return server.address(family), server.interfaces["client"].mac


def fenced(server, client, family):
    """Wait until the client has processed what the server has sent: a packet from another address follows."""
    fence(server, client, client.address(family))


def test_gratuitous_announcement_moves_an_address_at_once(net, family):
    """A gratuitous ARP or an unsolicited advertisement with the override flag changes the entry, which is STALE then (RFC 5227, 2.4; RFC
    4861, 7.2.5), also within arp's locktime of a second: how keepalived takes an address over (metallb #123, keepalived #20)."""
    client, server = net.nodes("client", "server")
    address, _mac = known(client, server, family)
    announce(server, "client", address, MOVED)
    eventually("MAC of the entry", lambda: entry(client, address).get("lladdr"), MOVED, within=1)
    assert state(client, address) == "STALE"
    with client.capture("udp") as packets, client.socket(family, socket.SOCK_DGRAM) as outbox:
        outbox.sendto(b"x", (address, PORT))

    assert packets.sent().only().layers.dst == MOVED


def test_advertisement_without_override_does_not_change_a_mac(net):
    """RFC 4861, 7.2.5: a REACHABLE entry becomes STALE and keeps its address; two hosts with one address do not take it from each other."""
    client, server = net.nodes("client", "server")
    address, mac = known(client, server, socket.AF_INET6)
    announce(server, "client", address, MOVED, flags=0)
    eventually("state of the entry", lambda: state(client, address), "STALE", within=1)

    assert entry(client, address)["lladdr"] == mac


def test_announcement_is_ignored_where_it_may_be_dropped(net, family):
    """drop_gratuitous_arp, drop_unsolicited_na (ip-sysctl.rst): against poisoning, as in wireless networks."""
    client, server = net.nodes("client", "server")
    address, mac = known(client, server, family)
    name = "ipv4.conf.to-server.drop_gratuitous_arp" if family == V4 else "ipv6.conf.to-server.drop_unsolicited_na"
    found = []
    for drop in (1, 0):
        client.pin({f"net.{name}": drop})
        announce(server, "client", address, MOVED)
        fenced(server, client, family)
        found.append(entry(client, address)["lladdr"])

    assert found == [mac, MOVED]


def test_announcement_of_an_unknown_address_makes_no_entry_unless_it_is_accepted(net):
    """arp_accept=0, the default: only what is known already is updated; 1 makes an entry (ip-sysctl.rst; metallb #123)."""
    client, server = net.nodes("client", "server")
    found = []
    for number, accept in enumerate((0, 1)):
        client.pin({"net.ipv4.conf.to-server.arp_accept": accept})
        announce(server, "client", f"192.0.2.{50 + number}", MOVED)
        fenced(server, client, V4)
        found.append(state(client, f"192.0.2.{50 + number}"))

    assert found == ["none", "STALE"]


def test_unknown_address_of_an_advertisement_is_ignored_by_a_host(net):
    """RFC 4861, 7.2.5: "There is no need to create an entry"; accept_untracked_na is for routers (RFC 9131)."""
    client, server = net.nodes("client", "server")
    heard = client.counter("Icmp6.InType136")
    announce(server, "client", "2001:db8:1::50", MOVED)
    client.await_counter("Icmp6.InType136", at_least(1), within=5, since=heard)
    fenced(server, client, socket.AF_INET6)

    assert state(client, "2001:db8:1::50") == "none"


def test_second_answer_within_the_locktime_is_ignored(net, clock):
    """locktime, a second (arp(7)): two hosts that answer for one address do not make the entry flutter; the first answer counts, and after
    the locktime another one does."""
    client, server = net.nodes("client", "server")
    address, mac = known(client, server, V4)
    ours = client.address(V4), client.interfaces["server"].mac
    reply(server, "to-client", address, MOVED, ours)
    fenced(server, client, V4)
    first = entry(client, address)["lladdr"]
    clock.sleep(1.1)
    reply(server, "to-client", address, MOVED, ours)
    eventually("MAC of the entry", lambda: entry(client, address).get("lladdr"), MOVED, within=1)

    assert first == mac


def test_permanent_entry_cannot_be_taken_over(net, family):
    """ip-neighbour(8), nud permanent: no announcement changes it, and one that is merely reachable is changed."""
    client, server = net.nodes("client", "server")
    address, mac, found = server.address(family), server.interfaces["client"].mac, []
    for nud in ("permanent", "reachable"):
        set_entry(client, address, mac, nud, DEVICE)
        announce(server, "client", address, MOVED)
        fenced(server, client, family)
        found.append((entry(client, address)["lladdr"], state(client, address)))

    assert found == [(mac, "PERMANENT"), (MOVED, "STALE")]


def answered(client, server, address):
    """Whether the server answers an ARP request for the address."""
    ours, mac = client.address(V4), client.interfaces["server"].mac
    with client.capture() as packets:
        arp(client, DEVICE, 1, (mac, ours), ("00:00:00:00:00:00", address))
        fenced(client, server, V4)
    return any(packet.ethertype == 0x0806 and sender_of(packet) == address for packet in packets.received())


def test_arp_ignore_decides_which_addresses_are_answered_for(net):
    """ip-sysctl.rst: 0 any local address, 1 those of the interface, 2 and in the asker's network, 8 none. A real server of a load balancer
    holds the virtual address on lo and must not answer for it."""
    client, server = net.nodes("client", "server")
    virtual, elsewhere, own = "203.0.113.1", "198.18.0.1", server.address(V4)
    server.add_address(virtual)
    server.add_address(f"{elsewhere}/24", "client")
    found = {}
    for value in (0, 1, 2, 8):
        server.pin({"net.ipv4.conf.to-client.arp_ignore": value})
        found[value] = [answered(client, server, address) for address in (virtual, elsewhere, own)]

    assert found == {0: [True, True, True], 1: [False, True, True], 2: [False, False, True], 8: [False, False, False]}


@pytest.mark.parametrize("value, announced", [(0, "203.0.113.1"), (1, "192.0.2.1"), (2, "192.0.2.1")])
def test_arp_announce_decides_which_address_asks(net, value, announced):
    """ip-sysctl.rst: with 0 the source of the packet, also one of another network; with 1 and 2 one in the neighbour's network, so that a
    real server does not draw the virtual address to itself."""
    client, server = net.nodes("client", "server")
    client.add_address("203.0.113.1")
    client.pin({"net.ipv4.conf.to-server.arp_announce": value})
    with client.capture() as packets:
        outbox = inbox(client, V4, 0, "203.0.113.1")
        theirs = inbox(server, V4, PORT)
        outbox.sendto(b"x", (server.address(V4), PORT))
        theirs.recv(10)

    assert sender_of(solicitations(packets, V4).only()) == announced


def test_arp_filter_answers_only_where_the_way_back_leads_out(net):
    """ip-sysctl.rst, arp_filter=1: on the interface by which the host would send to the asker; of two links to one network only one
    answers."""
    client, server = net.nodes("client", "server")
    address, ours = server.address(V4), client.address(V4)
    server.pin({"net.ipv4.conf.to-client.arp_filter": 1})
    assert answered(client, server, address)
    server.run(["ip", "-batch", "-"], stdin=f"link add dummy0 type dummy\nlink set dummy0 up\nroute add {ours} dev dummy0\n")
    mac = client.interfaces["server"].mac
    with client.capture() as packets, server.capture() as theirs:
        arp(client, DEVICE, 1, (mac, ours), ("00:00:00:00:00:00", address))
        theirs.until("the request", lambda seen: [each for each in seen.received() if each.ethertype == 0x0806], within=5)

    assert [packet for packet in packets.received() if packet.ethertype == 0x0806] == []
    server.run(["ip", "route", "del", ours, "dev", "dummy0"])
    assert answered(client, server, address)


def test_probe_for_an_address_is_answered_and_leaves_no_entry(net):
    """RFC 5227, 2.1.1: an ARP probe, from 0.0.0.0, finds that the address is taken."""
    client, server = net.nodes("client", "server")
    address, mac = server.address(V4), client.interfaces["server"].mac
    with client.capture() as packets:
        arp(client, DEVICE, 1, (mac, "0.0.0.0"), ("00:00:00:00:00:00", address))
        packets.until("the answer", lambda seen: [each for each in seen.received() if each.ethertype == 0x0806], within=5)

    assert state(server, "0.0.0.0") == "none"


@pytest.mark.topology(ROUTED)
def test_router_answers_for_hosts_behind_it(net, family):
    """proxy_arp=1; for IPv6 proxy_ndp=1 and an entry for each address (ip-sysctl.rst; ip-neighbour(8), proxy; RFC 4389): the client takes
    them for neighbours, and reaches them. Without it nobody answers."""
    client, router, server = net.nodes("client", "router", "server")
    there, version = server.address(family), "-4" if family == V4 else "-6"
    client.run(["ip", version, "route", "add", there, "dev", "to-router"])
    theirs = inbox(server, family, PORT)
    ours = client.socket(family, socket.SOCK_DGRAM)
    ours.connect((there, PORT))
    ours.settimeout(10)
    ours.setsockopt(*((socket.IPPROTO_IP, 11) if family == V4 else (socket.IPPROTO_IPV6, 25)), 1)       # IP_RECVERR: ip(7), ipv6(7)
    ours.send(b"lost")
    with refused("EHOSTUNREACH", "an answer of a host behind a router that is no proxy"):
        ours.recv(1)
    if family == V4:
        router.pin({"net.ipv4.conf.to-client.proxy_arp": 1})
    else:
        router.pin({"net.ipv6.conf.to-client.proxy_ndp": 1})
        router.run(["ip", "-6", "neigh", "add", "proxy", there, "dev", "to-client"])
    ours.send(b"x")

    assert theirs.recv(10) == b"x"
    assert entry(client, there)["lladdr"] == router.interfaces["client"].mac


def test_watchers_hear_of_each_state(net, family):
    """rtnetlink(7), RTM_NEWNEIGH to RTNLGRP_NEIGH: what a routing daemon and an overlay's control plane go by."""
    client, server = net.nodes("client", "server")
    watcher = client.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    watcher.bind((0, 1 << 2))               # RTMGRP_NEIGH
    watcher.setblocking(False)
    address, _mac = known(client, server, family)
    announce(server, "client", address, MOVED)
    fenced(server, client, family)
    client.run(["ip", "neigh", "del", address, "dev", DEVICE])
    packed, heard = socket.inet_pton(family, address), []
    while True:
        try:
            datagram = watcher.recv(1 << 16)
        except BlockingIOError:
            break
        _length, kind, *_rest = HEADER.unpack_from(datagram)
        if packed in datagram:
            heard.append((kind, int.from_bytes(datagram[HEADER.size + 8:HEADER.size + 10], "little")))

    NEWNEIGH, DELNEIGH, REACHABLE, STALE = 28, 29, 0x02, 0x04
    assert [each for each in heard if each in ((NEWNEIGH, REACHABLE), (NEWNEIGH, STALE))][:2] == [(NEWNEIGH, REACHABLE), (NEWNEIGH, STALE)]
    assert heard[-1][0] == DELNEIGH


def test_full_table_refuses_entries_except_permanent_ones(net, family):
    """gc_thresh3 (arp(7)), shared by all namespaces: young entries are not collected, the next one gets ENOBUFS, and the kernel's log says
    so; a permanent one is exempt, and neighbours that are known go on (kops #4533, router7 #31, e2b infra #3508)."""
    client, server = net.nodes("client", "server")
    address, _mac = known(client, server, family)
    base, ip = ("192.0.2.", "ipv4") if family == V4 else ("2001:db8:1::", "ipv6")
    most = 60
    with KernelLog() as log, global_sysctl(f"net.{ip}.neigh.default.gc_thresh3", most):
        made = 0
        for number in range(100, 100 + most + 20):
            failure = client.failure(["ip", "neigh", "add", f"{base}{number}", "lladdr", MOVED, "nud", "stale", "dev", DEVICE])
            if failure:
                assert "No buffer space" in failure
                break
            made += 1
        assert 0 < made < most + 20
        set_entry(client, f"{base}99", MOVED, "permanent", DEVICE)
        fence(client, server, address)
        assert any("neighbor table overflow" in str(record).lower() or "neighbour table overflow" in str(record).lower()
                   for record in log.records())

    assert state(client, f"{base}99") == "PERMANENT"
