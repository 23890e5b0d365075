"""Packets are taken apart right: IPv6 extension headers, fragments, TCP options."""

import socket

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    RouterAlert,
    fragment6,
)
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import ARP, Ether

import netns
from fixtures.topologies import LAN
from netns.packets.packet import Frame, Packet

V6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
V4 = IP(src="192.0.2.1", dst="192.0.2.2")
SEGMENT = TCP(sport=1000, dport=2000, seq=5, ack=7, flags="PA") / b"hello"
OPTIONS = IPv6ExtHdrDestOpt(options=[])
HEADERS = {
    "none": V6,
    "hop-by-hop": V6 / IPv6ExtHdrHopByHop(options=[RouterAlert()]),
    "destination": V6 / OPTIONS,
    "routing": V6 / IPv6ExtHdrRouting(addresses=["2001:db8::3"]),
    "all": V6 / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / OPTIONS / IPv6ExtHdrRouting(addresses=["2001:db8::3"]) / OPTIONS,
    "fragment": V6 / IPv6ExtHdrFragment(id=1, m=0, offset=0),
}


def packet(layers: object, recorded: int = 446) -> Packet:
    data = bytes(Ether() / layers)
    return Packet(Frame(0, 1, 0, len(data), data[:recorded]), "to-server")


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_what_is_behind_extension_headers_is_found(headers):
    tcp = packet(headers / SEGMENT)
    assert (tcp.protocol, tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.flags, tcp.length) == ("tcp", 1000, 2000, 5, 7, "PA", 5)
    assert (tcp.source, str(tcp.tcp.flags)) == ("2001:db8::1", "PA")
    assert packet(headers / UDP() / b"x").protocol == "udp"
    echo = packet(headers / ICMPv6EchoRequest(id=3))
    assert (echo.protocol, echo.icmp[0], echo.icmp[4:6]) == ("icmpv6", 128, b"\0\3")
    esp = packet(headers / ESP(spi=0x1234, seq=7))
    assert (esp.protocol, esp.spi, esp.esp_sequence) == ("esp", 0x1234, 7)


def test_an_mld_report_is_icmpv6():
    assert packet(V6 / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2()).protocol == "icmpv6"


def test_headers_that_were_not_recorded_leave_the_protocol_open():
    assert packet(HEADERS["all"] / SEGMENT, recorded=14 + 40 + 8 + 4).protocol is None
    assert packet(ARP()).protocol is None


def fragments(family: socket.AddressFamily) -> list[Packet]:
    if family == socket.AF_INET:
        return list(map(packet, fragment(V4 / TCP(sport=1000) / bytes(1000), fragsize=600)))
    return list(map(packet, fragment6(V6 / IPv6ExtHdrFragment(id=1) / TCP(sport=1000) / bytes(1000), 700)))


def test_fragments_are_of_their_protocol_and_only_the_first_has_its_header(family):
    first, second = fragments(family)
    assert (first.protocol, first.fragment, first.sport) == ("tcp", 0, 1000)
    assert (second.protocol, second.fragment, second.segment) == ("tcp", first.length + 20, None)
    with pytest.raises(AttributeError, match="no TCP segment begins in this packet"):
        _ = second.flags
    assert packet((V4 if family == socket.AF_INET else V6) / SEGMENT).fragment is None


def test_later_fragments_have_no_icmp_message_and_no_spi(family):
    for protocol in (socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6, socket.IPPROTO_ESP):
        header = IP(proto=protocol, frag=9) if family == socket.AF_INET else V6 / IPv6ExtHdrFragment(nh=protocol, offset=9)
        later = packet(header / bytes(64))
        assert (later.fragment, later.icmp) == (72, None)
        with pytest.raises(AttributeError, match="no ESP begins in this packet"):
            _ = later.spi


def test_extension_headers_in_the_first_fragment_leave_the_later_ones_open():
    later = packet(V6 / IPv6ExtHdrFragment(nh=60, offset=9) / bytes(64))
    assert (later.protocol, later.fragment) == (None, 72)


def test_tcp_options_have_names(family):
    """As the kernel sends them, and as scapy reads them."""
    with netns.build(LAN, capture=True) as network:
        client, server = network.nodes("client", "server")
        for host in (client, server):
            host.pin({"net.ipv4.tcp_timestamps": 1, "net.ipv4.tcp_sack": 1, "net.ipv4.tcp_window_scaling": 1})
        with client.capture("tcp") as packets:
            netns.tcp_pair(client, server, family)
        syn, _answer, ack = packets.exactly(3)

    seen = dict(syn.tcp.options)
    assert (syn.mss, syn.wscale, syn.timestamps) == (seen["MSS"], seen["WScale"], seen["Timestamp"])
    assert (syn.mss, syn.sack_ok, syn.sacks) == (1460 if family == socket.AF_INET else 1440, True, False)
    assert (ack.mss, ack.wscale, ack.sack_ok) == (None, None, False)
    assert ack.timestamps[0] >= syn.timestamps[0] and ack.timestamps[1] > 0


@pytest.mark.parametrize("options", [b"\x02\x00\x05\xb4", b"\x01\x01\x01\x02", b"\x01\x02\x09\x05"],
                         ids=["length 0", "no length", "too long"])
def test_impossible_tcp_options_end_the_list(options):
    data = bytearray(bytes(Ether() / V4 / TCP(dataofs=6)))
    data[14 + 20 + 20:] = options
    assert Packet(Frame(0, 1, 0, len(data), bytes(data)), "to-server").mss is None
