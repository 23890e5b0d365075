"""Routers, routes and path MTUs: what the library builds of them, and how it reads them."""

import ipaddress
import socket

import pytest

import netns
from fixtures.topologies import FORK, LAN, NARROW, ROUTED
from netns.hosts import offload, tunnel
from netns.observe import procnet
from netns.packets import icmp, pmtu


def test_hosts_reach_each_other_through_routers(family):
    with netns.build(NARROW) as network, netns.stopwatch() as took:
        netns.deliver(*netns.tcp_pair(*network.nodes("client", "server"), family), 1000)
    assert took.seconds < 2


def test_a_routes_own_mtu_is_the_paths(family):
    slow = netns.Topology(LAN.links, routes=(netns.Route("client", via="server", mtu=1234),))
    with netns.build(slow) as network:
        path = pmtu.path(network["client"], "198.51.100.1" if family == socket.AF_INET else "2001:db8:9::1")
    assert (path.mtu, path.via, path.device) == (1234, network["server"].address(family), "to-server")


def test_the_drawing_names_routes_and_routers():
    assert str(ROUTED).splitlines()[2:] == [
        "client: default via router", "server: default via router", "router forwards"
    ]
    assert "fork: 203.0.113.9 via upper or lower" in str(FORK)


def test_an_error_of_our_own_is_read_as_it_was_sent(family):
    with netns.build(ROUTED, capture=True) as network:
        client, server, router = network.nodes("client", "server", "router")
        with client.capture() as packets:
            quoted = icmp.udp_quote(client.address(family), 9, server.address(family), 9)
            icmp.send_too_big(router, client, 1300, quoted)
        assert [pmtu.announced(error) for error in pmtu.too_big(packets.received())] == [1300]
        # A wrong checksum would not get so far.
        counters = client.counters()
        assert counters["Icmp.InCsumErrors" if family == socket.AF_INET else "Icmp6.InCsumErrors"] == 0


def test_segments_are_cut_before_they_are_captured():
    with netns.build(LAN, capture=True) as network:
        client, server = network.nodes("client", "server")
        conn, peer = netns.tcp_pair(client, server, socket.AF_INET)
        for cut, most in ((False, 4000), (True, 1448)):
            if cut:
                offload.segment_in_software(client)
            with client.capture("tcp") as packets:
                netns.deliver(conn, peer, 4000)
            assert max(packet.length for packet in packets.sent()) == most


def test_data_that_does_not_arrive_is_said_with_its_amount():
    with netns.build(LAN) as network:
        client, server = network.nodes("client", "server")
        conn, peer = netns.tcp_pair(client, server, socket.AF_INET)
        with netns.firewall.drop(server, client.address(socket.AF_INET)):
            expected = r"server received 0 of 10 bytes within 0\.1 s; client: TcpInfo.state='ESTAB"
            with pytest.raises(netns.ExpectationFailed, match=expected):
                netns.deliver(conn, peer, 10, within=0.1)


def test_a_connection_that_ends_has_delivered_what_arrived():
    with netns.build(LAN) as network:
        client, server = network.nodes("client", "server")
        conn, _peer = netns.tcp_pair(client, server, socket.AF_INET)
        other, ended = netns.tcp_pair(client, server, socket.AF_INET)
        other.send(b"abc")
        other.close()
        with pytest.raises(netns.ExpectationFailed, match="server received 3 of 10 bytes before EOF"):
            netns.deliver(conn, ended, 10)


def test_a_tunnel_that_the_kernel_does_not_have_is_named():
    with netns.build(LAN) as network, pytest.raises(netns.MissingFeature, match="no nosuch tunnels"):
        tunnel.add(network["client"], "tunnel", "nosuch")


def test_a_lock_is_read():
    with netns.build(LAN) as network:
        client, server = network.nodes("client", "server")
        client.run(["ip", "route", "add", "203.0.113.0/24", "via", server.address(socket.AF_INET), "mtu", "lock", "1000"])
        path = pmtu.path(client, "203.0.113.1")
    assert (path.mtu, path.locked, path.expires) == (1000, True, None)


def test_packets_of_a_device_without_ethernet_read_as_all_others():
    """A tunnel's packets begin with IP and have no Ethernet header."""
    with netns.build(LAN, capture=True) as network:
        client, server = network.nodes("client", "server")
        try:
            tunnel.add(client, "tunnel", "sit", "remote", server.address(socket.AF_INET), address="2001:db8:7::1/64")
        except netns.MissingFeature as missing:
            pytest.skip(str(missing))
        udp = client.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with client.capture("udp") as packets:
            udp.sendto(b"x", ("2001:db8:7::2", 9))
        assert {(packet.interface, packet.ip.dst) for packet in packets.sent()} == {("tunnel", "2001:db8:7::2")}


def test_packets_to_an_added_address_reach_the_host_at_once():
    """IPv6 gives an address its local route later, in a work queue. Each of 30 is looked for as soon as it was added."""
    with netns.build(LAN) as network:
        client = network["client"]
        for number in range(1, 31):
            address = ipaddress.ip_address(f"2001:db8:ff::{number:x}")
            client.add_address(str(address))
            with client.entered():
                assert address.packed.hex().encode() in dict(procnet.local_routes()), number
