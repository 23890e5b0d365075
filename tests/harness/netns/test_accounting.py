"""What a host counts is compared with what it sent and received: each rule is seen to fail by one packet more or less in a counter."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import build, tcp_pair
from netns.observe import accounting
from netns.observe.counters import Counters
from netns.packets import segment

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def client():
    """A host that has sent TCP, UDP and pings to another, over IPv4 and IPv6, with answers."""
    with build(LAN, capture=True) as net:
        client, server = net.nodes("client", "server")
        for family in (V4, V6):
            conn, peer = tcp_pair(client, server, family)
            conn.send(b"x")
            peer.recv(1)
            sender = client.socket(family, socket.SOCK_DGRAM)
            sender.connect((server.address(family), 4000))
            sender.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                sender.settimeout(5)
                sender.recv(1)
        yield client


@pytest.fixture
def but(monkeypatch):
    """but(name, more): this counter reads as if the kernel had counted so many more."""
    read, by_type = Counters.__getitem__, Counters.icmp_by_type

    def alter(name, more):
        monkeypatch.setattr(Counters, "__getitem__", lambda counters, asked: read(counters, asked) + more * (asked == name))
        typed = name.partition("Type")[0]
        monkeypatch.setattr(Counters, "icmp_by_type", lambda counters, version, way:
                            by_type(counters, version, way) + more * (typed == {4: f"IcmpMsg.{way}", 6: f"Icmp6.{way}"}[version]))
    return alter


def test_a_host_that_counts_right_has_no_faults(client):
    assert accounting.faults(client) == []


def test_a_host_with_a_flowtable_may_forward_more_than_it_counts(client, but):
    but("Ip.InReceives", -1)
    assert accounting.faults(client)
    client.has_flowtable = True
    assert accounting.faults(client) == []


@pytest.mark.parametrize(("name", "more"), [
    ("Ip.InReceives", 1), ("Ip.InReceives", -1), ("Ip6.InReceives", 9), ("Ip6.InReceives", -1),
    ("Ip.OutTransmits", 1), ("Ip.OutTransmits", -99), ("Ip6.OutTransmits", 1), ("Ip6.OutTransmits", -99),
    ("Ip.OutRequests", -1), ("Ip6.OutRequests", -1), ("Ip.FragOKs", 1), ("Ip6.FragOKs", 1),
    ("Icmp.InMsgs", 1), ("Icmp.InMsgs", -1), ("Icmp.OutMsgs", 1), ("IcmpMsg.InType3", 1), ("IcmpMsg.OutType8", 1),
    ("Icmp6.InMsgs", 1), ("Icmp6.OutMsgs", -1), ("Icmp6.InType1", 1),
])
def test_a_counter_that_is_wrong_is_named(client, but, name, more):
    if name.endswith("OutTransmits") and name not in client.counters().names():
        pytest.skip(f"the kernel has no counter {name}")
    but(name, more)

    (fault,) = accounting.faults(client)

    assert name.replace("Msg.", ".").partition(".")[0].replace("Frag", "") in fault


def test_packets_that_no_kernel_counts_are_no_fault(client):
    """Those of an IPv4 socket with its own header."""
    segment.send_datagram(client, (client.address(V4), 1), (client.address(V4, peer="server"), 4000))

    assert accounting.faults(client) == []


def test_types_are_counted_on_all_lines_of_the_table():
    """The kernel prints 16 of them on a line."""
    names = [f"InType{number}" for number in range(16)], [f"InType{number}" for number in (16, 17)] + ["OutType3"]
    lines = [line for part in names for line in (f"IcmpMsg: {' '.join(part)}", f"IcmpMsg: {' '.join('2' * len(part))}")]
    counters = Counters({"snmp": "\n".join(["Icmp: InMsgs", "Icmp: 36", *lines, "Tcp: InSegs", "Tcp: 1", ""]).encode()})

    assert (counters.icmp_by_type(4, "In"), counters.icmp_by_type(4, "Out")) == (36, 2)
