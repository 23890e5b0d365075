"""Path MTU exceptions of a host: which destinations they cover, and what removes them."""

import socket
from contextlib import contextmanager

import pytest

from fixtures.topologies import NARROW, ROUTED
from netns import CommandError, deliver, eventually, missing_feature, tcp_info, tcp_pair
from netns.attempt import errno_of
from netns.hosts import offload
from netns.packets import errqueue, icmp, pmtu

pytestmark = pytest.mark.topology(ROUTED)

LEAST = {socket.AF_INET: 552, socket.AF_INET6: 1280}
PREFIX = {socket.AF_INET: "198.51.100.0/24", socket.AF_INET6: "2001:db8:2::/64"}
FLAG = {socket.AF_INET: "-4", socket.AF_INET6: "-6"}
# A router that answers no ARP requests or neighbour solicitations.
SILENCE = """
table arp kdrift-silent { chain input { type filter hook input priority 0; policy drop; }; }
table ip6 kdrift-silent { chain input { type filter hook input priority 0; icmpv6 type nd-neighbor-solicit drop; }; }
"""


@contextmanager
def quotable(net, family, destination):
    """A UDP packet to the destination as an ICMP error would quote it; a client socket has its source port."""
    client = net["client"]
    with client.socket(family, socket.SOCK_DGRAM) as udp:
        udp.bind((client.address(family), 0))
        yield icmp.udp_quote(client.address(family), udp.getsockname()[1], destination, 9)


def learn(net, family, mtu):
    """The router announces this MTU for the path to the server; returns the client's path to it."""
    client, server, router = net.nodes("client", "server", "router")
    with quotable(net, family, server.address(family)) as quoted:
        icmp.send_too_big(router, client, mtu, quoted)
    return pmtu.path(client, server.address(family))


def test_exception_applies_to_one_destination_only(net, family):
    """Another address of the same prefix and route has no exception (RFC 1191 section 6.2)."""
    client, server = net.nodes("client", "server")
    assert learn(net, family, 1300).mtu == 1300

    assert pmtu.path(client, server.address(family) + "1").mtu is None


def test_exception_lasts_600_seconds(net, family, clock):
    """mtu_expires is 600 s by default (ip-sysctl.rst): 3 s later 597 s are left."""
    client, server = net.nodes("client", "server")
    assert learn(net, family, 1300).expires in (598, 599, 600)
    clock.sleep(3)

    assert pmtu.path(client, server.address(family)).expires in (595, 596, 597)


def test_smaller_mtu_that_is_learned_later_lasts_600_seconds_too(net, family, clock):
    """Each error restarts the time after which a larger MTU is tried (RFC 1191, 6.3; RFC 8201, 5.3)."""
    assert learn(net, family, 1300).expires in (598, 599, 600)
    clock.sleep(20)

    later = learn(net, family, 1290)

    assert later.mtu == 1290
    assert later.expires in (598, 599, 600)


def test_exception_is_gone_after_mtu_expires(net, family, clock):
    """With mtu_expires of 2 s: valid after 1 s, gone after 2.1 s."""
    client, server = net.nodes("client", "server")
    with pmtu.expiry(client, family, 2):
        assert learn(net, family, 1300).mtu == 1300
        clock.sleep(1)
        assert pmtu.path(client, server.address(family)).mtu == 1300
        clock.sleep(1.1)

    assert pmtu.path(client, server.address(family)).mtu is None


def test_exception_is_removed_when_the_gateway_is_unreachable(net, family):
    """A host without its gateway needs another path, with another MTU: ipv4_link_failure(), ip6_link_failure()."""
    client, server, router = net.nodes("client", "server", "router")
    assert learn(net, family, 1300).mtu == 1300
    router.nft(SILENCE)
    client.run(["ip", FLAG[family], "neighbour", "flush", "dev", "to-router"])

    with client.socket(family, socket.SOCK_DGRAM) as udp:
        errqueue.receive_errors(udp)
        udp.connect((server.address(family), 9))
        eventually("outcome of client's send()", lambda: errno_of(udp.send, b"x"), "EHOSTUNREACH", within=10)
    with client.socket(family, socket.SOCK_DGRAM) as udp:
        assert pmtu.of_new_peer(udp, server.address(family)) == 1500


def test_mtu_below_the_minimum_is_raised_and_locked_over_ipv4_and_ignored_over_ipv6(net, family):
    """IPv4: the exception gets min_pmtu (552) and is locked: packets have no DF, so that routers can fragment them.
    IPv6: no link is below 1280 (RFC 8201 section 4: the error is ignored)."""
    client, server = net.nodes("client", "server")
    path = learn(net, family, LEAST[family] - 1)

    if family == socket.AF_INET6:
        assert path.mtu is None
        return
    assert (path.mtu, path.locked) == (552, True)
    conn, peer = tcp_pair(client, server, family)
    offload.segment_in_software(client)
    with client.capture("tcp") as packets:
        deliver(conn, peer, 3000)
    data = packets.sent().which("with data", lambda packet: packet.length).some()
    assert {str(packet.ip.flags) for packet in data} == {""}
    assert max(packet.ip.len for packet in data) == 552


def test_minimum_mtu_is_accepted_and_not_locked(net, family):
    """552 over IPv4, 1280 over IPv6."""
    path = learn(net, family, LEAST[family])

    assert (path.mtu, path.locked) == (LEAST[family], False)


def test_route_cache_flush_removes_exceptions(net, family):
    """`ip route flush cache` (sysctl route.flush), at its first use."""
    client, server = net.nodes("client", "server")
    assert learn(net, family, 1300).mtu == 1300

    client.run(["ip", FLAG[family], "route", "flush", "cache"])

    assert pmtu.path(client, server.address(family)).mtu is None


def test_new_or_replaced_route_does_not_inherit_exceptions(net, family):
    """A more specific route has none; nor has a replaced one, whose own mtu applies."""
    client, server, router = net.nodes("client", "server", "router")
    gateway = router.address(family, "client")
    assert learn(net, family, 1300).mtu == 1300
    client.run(["ip", "route", "add", PREFIX[family], "via", gateway])
    assert pmtu.path(client, server.address(family)).mtu is None

    assert learn(net, family, 1300).mtu == 1300
    client.run(["ip", "route", "replace", PREFIX[family], "via", gateway, "mtu", "1450"])
    assert pmtu.path(client, server.address(family)).mtu == 1450


def test_link_down_removes_exceptions(net):
    """The link's routes are removed, and their exceptions with them."""
    client, server, router = net.nodes("client", "server", "router")
    assert learn(net, socket.AF_INET, 1300).mtu == 1300
    with client.link_down("router"):
        pass
    client.run(["ip", "route", "add", "default", "via", router.address(socket.AF_INET, "client")])

    assert pmtu.path(client, server.address(socket.AF_INET)).mtu is None


def test_replacing_a_nexthop_object_removes_exceptions(net, family):
    """A route over a nexthop object (ip-nexthop(8)) gets an exception and loses it when the object is replaced."""
    client, server, router = net.nodes("client", "server", "router")
    gateway = router.address(family, "client")
    nexthop = ["id", "7", "via", gateway, "dev", "to-router"]
    try:
        client.run(["ip", FLAG[family], "nexthop", "add", *nexthop])
    except CommandError as error:
        raise missing_feature("the kernel has no nexthop objects", error) from error
    client.run(["ip", "route", "add", PREFIX[family], "nhid", "7"])
    assert learn(net, family, 1300).mtu == 1300

    client.run(["ip", FLAG[family], "nexthop", "replace", *nexthop])

    assert pmtu.path(client, server.address(family)).mtu is None
    conn, peer = tcp_pair(client, server, family)
    deliver(conn, peer, 5000)


@pytest.mark.topology(NARROW)
def test_connection_keeps_or_regains_its_mss_after_its_exception_is_removed(net, family, clock, measure):
    """A lookup removes an expired exception; the connection's next segments have the full size or the previous one: no link on the path
    is narrower (RFC 1191, 3)."""
    client, server = net.nodes("client", "server")
    offload.segment_in_software(client)
    with pmtu.expiry(client, family, 2):
        conn, peer = tcp_pair(client, server, family)
        full = tcp_info(conn).snd_mss
        deliver(conn, peer, full)
        clock.sleep(2.1)
        assert pmtu.path(client, server.address(family)).mtu is None

    with client.capture("tcp") as packets:
        deliver(conn, peer, 2 * full)

    first = packets.sent().which("with data", lambda packet: packet.length)[0]
    assert measure("pmtu.first_segment_after_removal", first.length, "bytes") in (full, full - 100)
    assert tcp_info(conn).snd_mss in (full, full - 100)


@pytest.mark.parametrize("count", [500, pytest.param(20000, marks=pytest.mark.mass)])
def test_number_of_exceptions_is_bounded_and_a_flush_removes_all(net, family, measure, count):
    """Each hash bucket (2048, IPv6 1024) keeps a few and evicts the oldest: a flood of errors costs bounded memory, and
    few destinations lose none. Above gc_thresh IPv6 drops exceptions whose gateway is not known as a router
    (rt6_age_examine_exception()); here it is."""
    client, router, server = net.nodes("client", "router", "server")
    source = client.address(family)
    deliver(*tcp_pair(client, server, family), 1)
    udp = client.socket(family, socket.SOCK_DGRAM)
    udp.bind((source, 0))
    prefix = "203.0." if family == socket.AF_INET else "2001:db8:5::"
    destinations = [f"{prefix}{number // 256}.{number % 256}" if family == socket.AF_INET else f"{prefix}{number:x}"
                    for number in range(count)]
    for destination in destinations:
        quoted = icmp.udp_quote(source, udp.getsockname()[1], destination, 9)
        # Wait only for the last one.
        icmp.send_too_big(router, client, 1300, quoted, confirm=destination == destinations[-1])

    kept = sum(pmtu.of_new_peer(udp, destination) == 1300 for destination in destinations)
    client.run(["ip", FLAG[family], "route", "flush", "cache"])

    measure(f"pmtu.exceptions_kept_of_{count}", kept, "exceptions", tolerance=count / 10)
    assert kept == count if count < 1000 else count / 20 < kept < count, kept
    assert {pmtu.of_new_peer(udp, destination) for destination in destinations[::10]} == {1500}


def test_redirect_and_path_mtu_of_one_destination_coexist(net):
    """A redirect (RFC 1122, 3.2.2.2) changes the next hop and keeps the MTU; an error changes the MTU and keeps the
    next hop."""
    family = socket.AF_INET
    client, server, router = net.nodes("client", "server", "router")
    client.pin({"net.ipv4.conf.all.accept_redirects": 1, "net.ipv4.conf.to-router.accept_redirects": 1,
                "net.ipv4.conf.to-router.secure_redirects": 0, "net.ipv4.conf.all.secure_redirects": 0})
    router.run(["ip", "address", "add", "192.0.2.77/24", "dev", "to-client"])
    at_router = ["lladdr", router.interfaces["client"].mac, "dev", "to-router"]
    client.run(["ip", "neighbour", "replace", "192.0.2.77", *at_router])
    assert learn(net, family, 1300).mtu == 1300

    with quotable(net, family, server.address(family)) as quoted:
        icmp.send_redirect(router, client, "192.0.2.77", quoted)

    path = pmtu.path(client, server.address(family))
    assert (path.via, path.mtu, path.redirected) == ("192.0.2.77", 1300, True)
    assert learn(net, family, 1200).mtu == 1200
    assert pmtu.path(client, server.address(family)).via == "192.0.2.77"
    deliver(*tcp_pair(client, server, family), 5000)
