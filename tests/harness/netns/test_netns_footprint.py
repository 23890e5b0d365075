"""Footprints, and the numbers that the report makes of them."""

import base64
import socket
import zlib

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6TimeExceeded, IPv6
from scapy.layers.l2 import Ether

from fixtures.topologies import LAN
from netns import deliver, tcp_pair
from netns.observe.footprint import FRAME, footprint
from report.traffic import differences, numbers

pytestmark = pytest.mark.topology(LAN)


def taken(net):
    return numbers({role: footprint(host) for role, host in net.hosts.items()})


def sends(*packets, unfinished=False):
    """What is said of these packets of one host, in their order."""
    frames = [bytes(Ether() / packet) for packet in packets]
    packed = b"".join(FRAME.pack(when, len(data), len(data), unfinished) + data for when, data in enumerate(frames))
    found = numbers({"host": {"frames": base64.b64encode(zlib.compress(packed)).decode(), "counters": {}}})
    return [name.removeprefix("host sends ") for name in found if not name.endswith(" at")]


V4, V6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")


@pytest.mark.parametrize("ip, words", [(V4, "ipv4 ttl 64 tos 0x0"), (V6, "ipv6 ttl 64 tos 0x0")], ids=["ipv4", "ipv6"])
def test_a_wrong_checksum_is_told(ip, words):
    """And one that the interface is to complete, but from a wrong beginning."""
    sound, broken = ip / UDP() / b"hello", ip / UDP(chksum=0xDEAD) / b"hello"
    assert sends(sound, broken) == [f"{words} udp, 13 bytes", f"{words} udp, 13 bytes bad checksum"]
    assert sends(ip / TCP(flags="A"), unfinished=True) == [f"{words} tcp A seq 0 len 0 bad checksum"]
    assert sends(V4 / ICMP(chksum=1)) == ["ipv4 ttl 64 tos 0x0 icmp 8/0, 8 bytes bad checksum"]


def test_a_wrong_header_checksum_and_options_are_told():
    assert sends(IP(src="192.0.2.1", dst="192.0.2.2", chksum=1) / UDP(), IP(options=[IPOption_NOP()] * 4) / UDP()) == [
        "ipv4 ttl 64 tos 0x0 bad header checksum udp, 8 bytes", "ipv4 ttl 64 tos 0x0 options of 4 udp, 8 bytes",
    ]


def test_an_icmp_error_tells_what_it_is_about():
    probe = IP(src="192.0.2.9", dst="192.0.2.1", ttl=1) / TCP(seq=5)
    assert sends(V4 / ICMP(type=11) / probe, V6 / ICMPv6TimeExceeded(code=0) / (IPv6(hlim=1) / UDP())) == [
        "ipv4 ttl 64 tos 0x0 icmp 11/0, 48 bytes about ipv4 ttl 1 tos 0x0 tcp S seq 0 ack 0 window 8192 len 0",
        "ipv6 ttl 64 tos 0x0 icmp 3/0, 56 bytes about ipv6 ttl 1 tos 0x0 udp, 8 bytes",
    ]


def test_how_far_an_older_connection_is_away_is_not_told():
    syn, probe, old = (V4 / TCP(seq=1 << 20, flags="S"), V4 / TCP(seq=(1 << 20) - 1, flags="A"), V4 / TCP(seq=5, flags="A"))
    assert [words.partition(" seq ")[2] for words in sends(syn, probe, old)[1:]] == ["-1 len 0", "before it began len 0"]


def test_a_reset_has_the_number_that_it_acknowledges():
    syn, reset = V4 / TCP(seq=1000), IP(src="192.0.2.2", dst="192.0.2.1") / TCP(sport=80, dport=20, flags="RA", ack=1001, window=0)
    assert sends(syn, reset)[1] == "ipv4 ttl 64 tos 0x0 tcp RA seq 0 ack 1 window 0 len 0"


def test_packets_are_counted_by_kind_and_timed(net, family):
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    deliver(conn, peer, 100)
    found = taken(net)
    syns = [name for name in found if " tcp S seq 0 ack 0 window " in name and not name.endswith(" at")]
    data = [name for name in found if " tcp PA len 100" in name and not name.endswith(" at")]
    assert [name.split()[0] for name in syns + data] == ["client", "client"]
    assert found[syns[0]] == found[data[0]] == 1
    assert found[syns[0] + " at"] <= found[data[0] + " at"] < 10


def test_counters_of_each_host_are_its_own(net, family):
    client, server = net.nodes("client", "server")
    tcp_pair(client, server, family)
    found = taken(net)
    assert (found["client counts Tcp.ActiveOpens"], found["server counts Tcp.PassiveOpens"]) == (1, 1)
    assert "client counts Tcp.PassiveOpens" not in found


def test_counters_of_an_interface_have_its_name(net):
    client, server = net.nodes("client", "server")
    tcp_pair(client, server, socket.AF_INET6)
    assert {"Ip6.OutRequests on to-client", "Ip6.InReceives on to-client"} <= footprint(server)["counters"].keys()


def test_two_connections_alike_leave_the_same(net, family):
    """Ports and sequence numbers are not in it."""
    client, server = net.nodes("client", "server")
    seen = []
    for _ in range(2):
        before = taken(net)
        conn, peer = tcp_pair(client, server, family)
        deliver(conn, peer, 100)
        conn.close()
        peer.close()
        after = taken(net)
        seen.append({name: value - before.get(name, 0) for name, value in after.items() if " sends " in name and not name.endswith(" at")})
    assert seen[0] == {name: value for name, value in seen[1].items() if value}


def test_a_time_may_move_as_far_as_a_timer_is_rounded():
    before = {"client sends x": 1, "client sends x at": 10.0}
    assert differences(before, before | {"client sends x at": 11.0}) == {}
    assert set(differences(before, before | {"client sends x at": 12.0})) == {"client sends x at"}
    assert set(differences(before, {})) == set(before)


def test_lines_of_the_kernels_log_are_counted_by_kind():
    """Numbers, addresses and process ids are not in it."""
    log = ["audit: audit_lost=1 audit_rate_limit=0", "audit: audit_lost=23 audit_rate_limit=0", "IPv6: 00:5e link 0xff12"]
    assert numbers(log=log) == {
        "the kernel logs: audit: audit_lost=# audit_rate_limit=#": 2, "the kernel logs: IPv6: #:# link #": 1,
    }
