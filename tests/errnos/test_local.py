"""Errors from the client's own host, before a packet leaves: addresses, ports and routes."""

import socket

import pytest

from fixtures.icmp_errors import V4
from fixtures.topologies import LAN
from netns import listen, timer_slack
from netns.attempt import WAYS, attempt, errno_of
from netns.hosts import firewall
from netns.packets.raw import outq

pytestmark = pytest.mark.topology(LAN)

FIRST_PORT = 40000
LOOPBACK = {V4: "127.0.0.1", socket.AF_INET6: "::1"}
ELSEWHERE = {V4: "203.0.113.9", socket.AF_INET6: "2001:db8:ff::9"}
# fib_props[] in net/ipv4/fib_semantics.c, fib6_prop[] and ip6_rt_type_to_error() in net/ipv6/route.c.
ROUTES = {"blackhole": "EINVAL", "unreachable": "EHOSTUNREACH", "prohibit": "EACCES", "throw": "ENETUNREACH"}


@pytest.fixture
def two_ports(net):
    """The client has two ephemeral ports."""
    net["client"].pin({"net.ipv4.ip_local_port_range": f"{FIRST_PORT} {FIRST_PORT + 1}",
                       "net.ipv4.ip_local_reserved_ports": "", "net.ipv4.tcp_tw_reuse": 0})


@pytest.mark.parametrize("way", WAYS)
def test_connect_without_a_free_port_fails_with_eaddrnotavail(net, family, two_ports, way):
    """Both ports have a connection to the server's port: the third attempt fails (tcp(7), ip(7))."""
    client, server = net.nodes("client", "server")
    listener = listen(server, family)
    target = listener.getsockname()[:2]
    for _port in range(2):
        assert attempt(client.socket(family), target, way).error == ""

    assert attempt(client.socket(family), target, way).error == "EADDRNOTAVAIL"


def test_ephemeral_ports_are_free_for_another_destination(net, family, two_ports):
    """Two ports allow two connections to each port of the server, not two in all (RFC 9293, 3.3.1)."""
    client, server = net.nodes("client", "server")
    targets = [listen(server, family).getsockname()[:2] for _ in range(3)]

    assert [errno_of(client.socket(family).connect, target) for target in targets for _port in range(2)] == [None] * 6


def test_ports_in_time_wait_are_not_free(net, family, two_ports):
    """With tcp_tw_reuse=0, TIME_WAIT (60 s) keeps a port from connecting to the same destination."""
    client, server = net.nodes("client", "server")
    listener = listen(server, family)
    for _port in range(2):
        conn = client.socket(family)
        conn.connect(listener.getsockname()[:2])
        accepted = server.adopt(listener.accept()[0])
        conn.close()
        accepted.close()

    assert client.counter("sockstat.TCP.tw") == 2
    assert errno_of(client.socket(family).connect, listener.getsockname()[:2]) == "EADDRNOTAVAIL"


def test_bind_without_a_free_port_fails_with_eaddrinuse(net, family, two_ports):
    """bind() to port 0, for TCP and UDP (ip(7)); sendto() from an unbound UDP socket fails with EAGAIN."""
    client, server = net.nodes("client", "server")
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for _port in range(2):
            client.socket(family, kind).bind((client.address(family), 0))
        assert errno_of(client.socket(family, kind).bind, (client.address(family), 0)) == "EADDRINUSE"

    datagram = client.socket(family, socket.SOCK_DGRAM)
    assert errno_of(datagram.sendto, b"x", (server.address(family), 9)) == "EAGAIN"


def test_bind_to_the_address_and_port_of_a_connection_fails_with_eaddrinuse(net, family):
    """On another address of the host the port is free (ip(7))."""
    client, server = net.nodes("client", "server")
    conn = client.socket(family)
    conn.connect(listen(server, family).getsockname()[:2])
    here, port = conn.getsockname()[:2]

    assert errno_of(client.socket(family).bind, (here, port)) == "EADDRINUSE"
    assert errno_of(client.socket(family).bind, (LOOPBACK[family], port)) is None


def test_bind_shares_a_port_only_if_both_sockets_have_so_reuseaddr(net, family):
    """And only if the first socket does not listen (socket(7)); otherwise EADDRINUSE."""
    client = net["client"]

    def second_bind(first, listens, second):
        """The errno of the second bind(); `first` and `second` are the sockets' SO_REUSEADDR."""
        owner, other = client.socket(family), client.socket(family)
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, first)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, second)
        owner.bind((client.address(family), 0))
        if listens:
            owner.listen()
        return errno_of(other.bind, owner.getsockname()[:2])

    cases = [(first, listens, second) for first in (0, 1) for listens in (False, True) for second in (0, 1)]
    seen = {case: second_bind(*case) for case in cases}
    assert {case for case in cases if seen[case] is None} == {(1, False, 1)}
    assert set(seen.values()) == {None, "EADDRINUSE"}


def test_ephemeral_ports_to_a_destination_advance_by_random_steps(net, family, measure):
    """The step from one port to the next varies (RFC 6056, 3.3.5; "tcp: add small random increments to the source port"), and none comes
    again soon (RFC 6056, 3.1)."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.ip_local_port_range": "32768 60999", "net.ipv4.ip_local_reserved_ports": ""})
    with client.capture("tcp") as packets:
        for _ in range(200):
            with client.socket(family) as conn:
                assert errno_of(conn.connect, (server.address(family), 9)) == "ECONNREFUSED"

    ports = [packet.sport for packet in packets.sent()]
    beyond = [later - earlier for earlier, later in zip(ports, ports[1:]) if later > earlier]
    assert measure("errno.steps_between_ports", len(set(beyond)), "steps", tolerance=1) > 1
    assert len(set(ports)) == 200


def test_datagram_that_an_output_chain_drops_frees_its_send_buffer(net, family):
    """Dropped by a rule or by the chain's policy: sendto() fails with EPERM, and SIOCOUTQ is 0."""
    client, server = net.nodes("client", "server")
    sender = client.socket(family, socket.SOCK_DGRAM)
    for policy in ("accept", "drop"):
        with firewall.drop_output(client, policy):
            assert [errno_of(sender.sendto, bytes(100), (server.address(family), 9)) for _ in range(3)] == ["EPERM"] * 3
            assert outq(sender) == 0


def test_bind_to_a_nonlocal_address_needs_ip_nonlocal_bind(net, family):
    """EADDRNOTAVAIL, for TCP and UDP; with ip_nonlocal_bind=1 both succeed (ip-sysctl.rst)."""
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.ip_nonlocal_bind": 0, "net.ipv6.ip_nonlocal_bind": 0})
    target = (server.address(family), 0)
    refused = [errno_of(client.socket(family, kind).bind, target) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    client.pin({"net.ipv4.ip_nonlocal_bind": 1, "net.ipv6.ip_nonlocal_bind": 1})
    allowed = [errno_of(client.socket(family, kind).bind, target) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]

    assert (refused, allowed) == (["EADDRNOTAVAIL"] * 2, [None, None])


def test_connect_without_a_local_address_fails(net, family):
    """IPv6 has a route but no source address: EADDRNOTAVAIL. IPv4 loses the route with the address: ENETUNREACH."""
    client, server = net.nodes("client", "server")
    for device in ("lo", "to-server"):
        client.run(["ip", "-4" if family == V4 else "-6", "address", "flush", "dev", device])
    if family != V4:
        client.run(["ip", "-6", "route", "add", "2001:db8:1::/64", "dev", "to-server"])
    seen = {errno_of(client.socket(family, kind).connect, (server.address(family), 9))
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)}

    assert seen == {"ENETUNREACH" if family == V4 else "EADDRNOTAVAIL"}


@pytest.mark.parametrize("way", WAYS)
def test_connect_without_a_route_fails_with_enetunreach(net, family, way):
    """Whichever way the client waits for connect()."""
    assert attempt(net["client"].socket(family), (ELSEWHERE[family], 9), way).error == "ENETUNREACH"


@pytest.mark.parametrize("route", ROUTES)
def test_reject_routes_give_connect_and_sendto_their_errno(net, family, route):
    """TCP and UDP: EINVAL from blackhole, EHOSTUNREACH from unreachable, EACCES from prohibit; throw means no route,
    ENETUNREACH (ip-route(8))."""
    client, target = net["client"], (ELSEWHERE[family], 9)
    client.run(["ip", "route", "add", route, ELSEWHERE[family]])

    tcp = {way: attempt(client.socket(family), target, way).error for way in WAYS}
    udp = (errno_of(client.socket(family, socket.SOCK_DGRAM).connect, target),
           errno_of(client.socket(family, socket.SOCK_DGRAM).sendto, b"x", target))

    assert (tcp, udp) == (dict.fromkeys(WAYS, ROUTES[route]), (ROUTES[route], ROUTES[route]))


def test_established_connection_survives_an_unreachable_route(net, family):
    """send() succeeds; the data waits and leaves when the route is deleted."""
    client, server = net.nodes("client", "server")
    listener = listen(server, family)
    conn = client.socket(family)
    conn.connect(listener.getsockname()[:2])
    peer = server.adopt(listener.accept()[0])
    client.run(["ip", "route", "add", "unreachable", server.address(family)])

    with client.capture("tcp") as packets:
        assert conn.send(b"x") == 1
        assert packets.packets() == []
        client.run(["ip", "route", "del", "unreachable", server.address(family)])
        peer.settimeout(10)
        assert peer.recv(1) == b"x"


def test_connect_to_an_unresolved_neighbour_fails_with_ehostunreach(net, family, clock, measure):
    """After three ARP requests or neighbour solicitations, 1 s apart (mcast_solicit, retrans_time_ms)."""
    client = net["client"]
    client.pin({f"net.{ip}.neigh.to-server.{name_}": value for ip in ("ipv4", "ipv6")
                for name_, value in (("mcast_solicit", 3), ("retrans_time_ms", 1000))})
    absent = "192.0.2.77" if family == V4 else "2001:db8:1::77"
    clock.align(4)
    outcome = attempt(client.socket(family), (absent, 9), "nonblocking")

    assert outcome.error == "EHOSTUNREACH"
    assert 2.9 < measure("errno.neighbour_unreachable_after", outcome.seconds, "s", timer_slack(1, 1, 1)) < 4
