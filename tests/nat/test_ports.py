"""Which address and port a translated flow gets, and what happens where none is left. Source: RFC 4787, RFC 5382;
iptables-extensions(8), SNAT and MASQUERADE; nft(8), NAT statements."""

import socket
import struct

import pytest

from fixtures.nat import INSIDE, V4, exchange, inbox, seen, to, translate, waiting
from netns import listen
from netns.attempt import attempt, refused
from netns.packets.icmp import checksum
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(INSIDE)

PORT, CLIENT_PORT = 7000, 40000
POOL = {V4: [f"198.51.100.{last}" for last in range(101, 105)], socket.AF_INET6: [f"2001:db8:2::{last}" for last in range(101, 105)]}
MASQUERADE = "postrouting oifname to-server masquerade"


def test_source_port_is_kept_where_it_is_free(net, family):
    """Where possible, no port is altered (iptables-extensions(8), SNAT; RFC 4787, 4.2.1): also that of another destination's flow,
    so one port of the router serves two clients at a time."""
    client, neighbour, router, server = net.nodes("client", "neighbour", "router", "server")
    translate(router, family, MASQUERADE)
    theirs = [inbox(server, family, PORT + number) for number in range(2)]
    ours = [inbox(host, family, CLIENT_PORT) for host in (client, neighbour)]

    sources = [exchange(mine, there, (server.address(family), PORT + number)) for number, (mine, there) in enumerate(zip(ours, theirs))]
    assert sources == [(router.address(family, "server"), CLIENT_PORT)] * 2


def test_second_client_with_the_same_port_gets_another_one(net, family):
    """Two flows to one destination must differ after translation (RFC 3022, 2.2); both clients get their own answers."""
    client, neighbour, router, server = net.nodes("client", "neighbour", "router", "server")
    translate(router, family, MASQUERADE)
    theirs, target = inbox(server, family, PORT), (server.address(family), PORT)
    ours = [inbox(host, family, CLIENT_PORT) for host in (client, neighbour)]
    first, second = (exchange(mine, theirs, target) for mine in ours)
    assert first == (router.address(family, "server"), CLIENT_PORT)
    assert second[0] == first[0] and second[1] not in (CLIENT_PORT, PORT) and second[1] >= 1024

    theirs.sendto(b"for the second", second)
    assert ours[1].recv(100) == b"for the second"
    assert waiting(ours) == [False, False]


@pytest.mark.parametrize("port, lowest, highest", [(500, 1, 511), (600, 512, 1023), (5000, 1024, 65535)])
def test_replacement_of_a_port_stays_in_its_range(net, family, port, lowest, highest):
    """Source ports below 512 are mapped to other ports below 512, those up to 1023 to ports below 1024, and others to 1024 or above:
    iptables-extensions(8), SNAT; RFC 4787, 4.2.2. IKE's port 500 depends on it."""
    client, neighbour, router, server = net.nodes("client", "neighbour", "router", "server")
    translate(router, family, MASQUERADE)
    theirs = inbox(server, family, PORT)
    first, second = (seen(inbox(host, family, port), theirs, (server.address(family), PORT)) for host in (client, neighbour))

    assert first[1] == port
    assert second[1] != port and lowest <= second[1] <= highest


@pytest.mark.parametrize("word", ["random", "fully-random"])
def test_random_ports_are_not_those_of_the_clients(net, family, word):
    """nft(8), random and fully-random; against clashes of flows that begin at the same time (kubernetes #56903, antrea #6544)."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, f"{MASQUERADE} {word}")
    theirs = inbox(server, family, PORT)
    ports = [exchange(inbox(client, family, CLIENT_PORT + number), theirs, (server.address(family), PORT))[1] for number in range(6)]

    distances = {port - CLIENT_PORT - number for number, port in enumerate(ports)}
    assert len(set(ports)) == 6 and min(ports) >= 1024
    assert 0 not in distances and len(distances) > 1


@pytest.mark.virtual_clock("takes 14 s")
def test_connection_that_finds_no_port_is_dropped_and_the_client_times_out(net, family, clock, measure):
    """A range of two ports serves two connections to one destination, and any number of destinations. The third's SYNs are dropped
    without an answer: with tcp_syn_retries=1 connect() gives up after 3 s. Once the entry of a reset connection has ended (10 s,
    nf_conntrack_tcp_timeout_close), its port is free again."""
    client, router, server = net.nodes("client", "router", "server")
    client.pin({"net.ipv4.tcp_syn_retries": 1})
    far = router.address(family, "server")
    translate(router, family, f"postrouting tcp dport 1024-65535 snat to {to(far, '4000-4001')}")
    listener, other = listen(server, family), listen(server, family)
    conns = []

    def connect(where):
        conn = client.socket(family)
        outcome = attempt(conn, where.getsockname()[:2], "nonblocking")
        conns.append(conn)
        return outcome

    assert [connect(listener).error for _ in range(2)] == ["", ""]
    assert {server.adopt(listener.accept()[0]).getpeername()[:2] for _ in range(2)} == {(far, 4000), (far, 4001)}
    failed = connect(listener)
    assert failed.error == "ETIMEDOUT"
    measure("nat.exhausted", failed.seconds, "s", 0.1)
    assert connect(other).error == ""
    conns[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    conns[0].close()
    clock.sleep(11)

    assert connect(listener).error == ""


def test_local_sender_that_finds_no_port_is_told_eperm(net, family):
    """On the translating host itself send() fails: the packet is dropped on the way out, as by a rule (netfilter(7) drops are EPERM)."""
    router, server = net.nodes("router", "server")
    far, target = router.address(family, "server"), (server.address(family), PORT)
    translate(router, family, f"postrouting oifname to-server udp dport {PORT} snat to {to(far, '4000-4000')}")
    theirs = inbox(server, family, PORT)
    assert exchange(inbox(router, family, CLIENT_PORT), theirs, target) == (far, 4000)

    with refused("EPERM", "a datagram for which no port is left"):
        inbox(router, family, CLIENT_PORT + 1).sendto(b"x", target)


def test_persistent_snat_gives_a_client_one_address_for_all_destinations(net, family):
    """Of a range of addresses, "persistent" takes the same one for each connection of a client (nft(8); RFC 4787, REQ-2: paired); without
    it the destination counts, too."""
    client, router, server = net.nodes("client", "router", "server")
    for address in POOL[family]:
        router.add_address(address, "server")
    ip = "ip" if family == V4 else "ip6"
    pool = f"{POOL[family][0]}-{POOL[family][-1]}"
    translate(router, family, f"postrouting {ip} saddr {client.address(family)} udp dport 7000 snat to {pool} persistent",
              f"postrouting {ip} saddr {client.address(family)} udp dport 7001 snat to {pool}")
    base = "198.51.100." if V4 == family else "2001:db8:2::"
    destinations = [f"{base}{last}" for last in range(201, 209)]
    for destination in destinations:
        server.add_address(destination, "router")
    found = []
    for port in (7000, 7001):
        theirs = inbox(server, family, port)
        found.append({seen(inbox(client, family), theirs, (destination, port))[0] for destination in destinations})

    persistent, spread = found
    assert len(persistent) == 1 and persistent | spread <= set(POOL[family])
    assert len(spread) > 1


def test_masquerade_takes_the_address_in_the_next_hops_network(net, family):
    """Of several addresses of the outgoing interface, the one from which the host itself would send there (inet_select_addr(), RFC 6724):
    not the first one."""
    client, router, server = net.nodes("client", "router", "server")
    here, there, prefix = ("198.18.5.9", "198.18.5.1", 24) if family == V4 else ("2001:db8:55::9", "2001:db8:55::1", 64)
    router.add_address(f"{here}/{prefix}", "server")
    server.add_address(f"{there}/{prefix}", "router")
    translate(router, family, MASQUERADE)
    theirs = inbox(server, family, PORT)

    assert [exchange(inbox(client, family), theirs, (address, PORT))[0] for address in (server.address(family), there)] \
        == [router.address(family, "server"), here]


def test_stranger_does_not_get_in_by_a_port_that_a_flow_has(net, family):
    """A mapping is for the flow's own destination: address and port dependent filtering (RFC 4787, 5). The datagram is the router's own,
    which has no socket there."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, MASQUERADE)
    ours, theirs, stranger = inbox(client, family), inbox(server, family, PORT), inbox(server, family, PORT + 1)
    source = exchange(ours, theirs, (server.address(family), PORT))
    stranger.connect(source)
    stranger.send(b"unasked")

    with refused("ECONNREFUSED", "the answer to a stranger's datagram"):
        stranger.recv(1)
    fence(server, client, client.address(family))
    assert waiting([ours]) == [False]


def test_two_clients_with_one_echo_identifier_get_their_own_replies(net, family):
    """Echo requests are told apart by their identifier, which NAT changes where it must (RFC 5508, REQ-1)."""
    client, neighbour, router, server = net.nodes("client", "neighbour", "router", "server")
    translate(router, family, MASQUERADE)
    protocol, request, reply = (socket.IPPROTO_ICMP, 8, 0) if family == V4 else (socket.IPPROTO_ICMPV6, 128, 129)
    answers = []
    with server.capture("icmp" if family == V4 else "icmpv6") as packets:
        for host in (client, neighbour):
            host.pin({"net.ipv4.ping_group_range": "0 0"})
            ping = host.socket(family, socket.SOCK_DGRAM, protocol)
            ping.bind((host.address(family), 77))
            ping.settimeout(5)
            ping.sendto(struct.pack("!BBHHH", request, 0, 0, 77, 1) + host.role.encode(), (server.address(family), 0))
            message = ping.recv(100)
            answers.append((message[0], int.from_bytes(message[4:6], "big"), message[8:].decode()))

    assert answers == [(reply, 77, "client"), (reply, 77, "neighbour")]
    requests = [packet for packet in packets.received() if packet.icmp[0] == request]
    assert {packet.source for packet in requests} == {router.address(family, "server")}
    assert len({packet.icmp[4:6] for packet in requests}) == 2


def test_checksums_are_right_after_translation(net, family):
    """RFC 3022, 4.1 and 4.2: what the server gets it takes for undamaged, and the ICMP error that it sends comes back with a right checksum
    and with the client's own address and port in what it quotes."""
    client, router, server = net.nodes("client", "router", "server")
    translate(router, family, MASQUERADE)
    ours = inbox(client, family, CLIENT_PORT)
    ours.connect((server.address(family), PORT))
    with client.capture("icmp" if family == V4 else "icmpv6") as packets, server.capture("udp") as datagrams, \
            refused("ECONNREFUSED", "a datagram to a closed port"):
        ours.send(b"x")
        ours.recv(1)
    error = [packet for packet in packets.received() if packet.icmp[0] == (3 if family == V4 else 1)]

    assert len(error) == 1 and server.counter("Udp.InCsumErrors" if family == V4 else "Udp6.InCsumErrors") == 0
    assert datagrams.received().only().source == router.address(family, "server")
    message = error[0].icmp
    quoted = message[8:]
    source, at = (quoted[12:16], 20) if family == V4 else (quoted[8:24], 40)
    assert (socket.inet_ntop(family, source), int.from_bytes(quoted[at:at + 2], "big")) == ours.getsockname()[:2]
    if family == V4:
        assert checksum(message) == 0
