"""The packet ring: what it sees, what it says of packets, and that it never hides a loss."""

import io
import socket
import time
from contextlib import ExitStack

import pytest
from scapy.utils import RawPcapReader

import netns
from fixtures.topologies import LAN


@pytest.fixture
def pair():
    """A recording client and server, and the two ends of a connection between them."""
    with netns.build(LAN, capture=True) as network:
        client, server = network.nodes("client", "server")
        yield client, server, *netns.tcp_pair(client, server, socket.AF_INET)


def test_segments_are_seen_at_both_ends_with_the_kernels_time(pair):
    client, server, conn, peer = pair
    began = time.time()
    with client.capture("tcp") as near, server.capture("tcp") as far:
        conn.sendall(b"hello")
        peer.recv(5)

    assert [(packet.flags, packet.length, packet.sent) for packet in near] == [("PA", 5, True), ("A", 0, False)]
    assert [(packet.flags, packet.length, packet.sent) for packet in far] == [("PA", 5, False), ("A", 0, True)]
    assert [packet.interface for packet in near] == ["to-server"] * 2
    assert began <= near.packets()[0].time <= far.packets()[0].time <= time.time()


def test_a_flow_reads_in_roles_and_relative_numbers(pair):
    client, _server, conn, peer = pair
    conn.sendall(b"hello")
    peer.recv(5)
    names = {client.address(socket.AF_INET): "client", _server.address(socket.AF_INET): "server"}

    text = "\n".join(packet.summary(names) for packet in client.ring.trace().packets)

    assert f"client:{conn.getsockname()[1]} > server:{peer.getsockname()[1]} [PA] seq 1 ack 1 len 5" in text
    assert f"server:{peer.getsockname()[1]} > client:{conn.getsockname()[1]} [A] seq 1 ack 6 len 0" in text


def test_a_new_connection_on_the_same_ports_starts_its_numbers_anew(pair):
    client, server, conn, peer = pair
    ours, theirs = conn.getsockname(), peer.getsockname()
    conn.sendall(b"hello")
    peer.recv(5)
    netns.vanish(conn)
    netns.vanish(peer)
    listener, again = server.socket(socket.AF_INET), client.socket(socket.AF_INET)
    listener.bind(theirs)
    listener.listen()
    again.bind(ours)
    with client.capture("tcp") as packets:
        again.connect(theirs)

    assert [(packet.flags, packet.relative_seq, packet.relative_ack) for packet in packets] == \
        [("S", 0, 0), ("SA", 0, 1), ("A", 1, 1)]


def test_looking_at_a_capture_that_lost_packets_is_an_error(pair):
    """More packets than the ring has frames."""
    client, _server, conn, _peer = pair
    udp = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client.capture("tcp") as packets:
        for _ in range(2100):
            udp.sendto(b"x", (client.address(socket.AF_INET), 9))
    with pytest.raises(netns.CaptureLost, match="client: the packet ring overflowed and lost [0-9]+ packets"):
        packets.packets()

    with client.capture("tcp") as packets:
        conn.sendall(b"hello")
    assert len(packets.sent()) == 1


def test_draining_makes_room(pair):
    client, _server, _conn, _peer = pair
    udp = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client.capture("udp") as packets:
        for number in range(2100):
            udp.sendto(b"x", (client.address(socket.AF_INET), 9))
            if number % 500 == 0:
                client.ring.drain()
    # Each one leaves by the loopback interface and comes in by it.
    assert len(packets) == 2 * 2100


def test_waiting_for_packets_in_vain_shows_what_came_instead(pair):
    client, _server, conn, _peer = pair
    with client.capture("tcp") as packets, pytest.raises(netns.ExpectationFailed, match=r"\[PA\] seq 1 ack 1 len 1 "):
        conn.sendall(b"x")
        packets.until("a keepalive probe", lambda seen: seen.probes(), within=0.1)


@pytest.mark.parametrize("limit, complete", [(65536, True), (600, False)])
def test_pcap_can_be_read_by_others_and_keeps_the_latest_packets(pair, limit, complete):
    """With their times in nanoseconds and their lengths on the wire; a long one is recorded in part."""
    client, _server, conn, _peer = pair
    conn.sendall(bytes(1000))
    data, cut = client.ring.pcap(limit)
    frames = client.ring.frames

    assert (cut == 0) == complete and len(data) <= limit
    reader = RawPcapReader(io.BytesIO(data))
    read = list(reader)
    assert reader.nano
    assert [packet for packet, _about in read] == [frame.data for frame in frames[cut:]] and read
    assert [(about.sec * 10**9 + about.usec, about.wirelen) for _packet, about in read] == \
        [(frame.nanoseconds, frame.length) for frame in frames[cut:]]
    assert any(about.caplen < about.wirelen for _packet, about in read)


@pytest.mark.parametrize("in_time", [True, False], ids=["in the block", "after the network"])
def test_capture_can_be_read_after_its_network_has_ended(in_time):
    """It has what came while it lasted; a capture that was still open ends with the network."""
    with ExitStack() as later:
        with netns.build(LAN, capture=True) as network:
            client, server = network.nodes("client", "server")
            with ExitStack() as soon:
                packets = (soon if in_time else later).enter_context(client.capture("tcp"))
                netns.tcp_pair(client, server, socket.AF_INET)
        assert [packet.flags for packet in packets][:3] == ["S", "SA", "A"]
        assert {packet.interface for packet in packets} == {"to-server"}


@pytest.mark.parametrize("flavour", netns.firewall.FLAVOURS)
def test_rule_counts_what_it_drops_and_goes_away(pair, flavour):
    client, server, conn, peer = pair
    with netns.firewall.drop(server, client.address(socket.AF_INET), flavour) as rule:
        conn.sendall(b"x")
        netns.eventually("packets that the rule counted", rule.packets, netns.at_least(2), within=5)
    peer.settimeout(5)
    assert peer.recv(1) == b"x"


def test_count_sees_what_comes_in_and_lets_it_pass(pair):
    client, server, conn, peer = pair
    with netns.firewall.count(server, socket.AF_INET) as rule:
        before = rule.packets()
        conn.sendall(b"x")
        assert peer.recv(1) == b"x"
        assert rule.packets() - before == 1


def test_unusable_firewall_is_named(pair, monkeypatch):
    client, server, _conn, _peer = pair
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(netns.hosts.nftables, "library", lambda: None)
    with pytest.raises(netns.MissingFeature, match="no firewall: nft is not installed; iptables-nft is not installed"):
        with netns.firewall.drop(server, client.address(socket.AF_INET)):
            pass


def test_an_unknown_protocol_is_refused(pair):
    """It would match no packet."""
    client, _server, _conn, _peer = pair
    with pytest.raises(ValueError, match="capture..: unknown protocol 'TCP'; use icmp, tcp, udp, esp, icmpv6, or None"):
        with client.capture("TCP"):
            pass


def test_a_host_that_does_not_record_says_how_to_make_it():
    with netns.build(LAN) as network:
        with pytest.raises(netns.NotRecording, match=r"^client does not record packets: .* build\(topology, capture=True\)"):
            with network["client"].capture():
                pass
        with network["client"].recording(), network["client"].capture() as packets:
            assert len(packets) == 0


def test_segments_are_read_as_scapy_reads_them(family):
    """The oracle for what is read without it."""
    with netns.build(LAN, capture=True) as network:
        client, server = network.nodes("client", "server")
        with client.capture("tcp") as packets:
            conn, peer = netns.tcp_pair(client, server, family)
            conn.sendall(b"hello")
            assert peer.recv(5) == b"hello"
            peer.close()
            conn.close()

        assert {packet.flags for packet in packets} >= {"S", "SA", "A", "PA", "FA"}
        for packet in packets:
            tcp, ip = packet.tcp, packet.ip
            over_ip = ip.len - 4 * ip.ihl if ip.version == 4 else ip.plen
            assert (packet.seq, packet.ack, packet.flags, packet.length) == \
                (tcp.seq, tcp.ack, str(tcp.flags), over_ip - 4 * tcp.dataofs)
