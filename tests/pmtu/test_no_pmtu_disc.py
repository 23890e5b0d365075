"""The sysctl ip_no_pmtu_disc: which fragmentation needed errors a host accepts (ip-sysctl.rst, modes 0 to 3)."""

import socket

import pytest

from fixtures.topologies import NARROW, ROUTED
from netns import deliver, tcp_pair
from netns.hosts import offload
from netns.packets import icmp, pmtu

DISC = "net.ipv4.ip_no_pmtu_disc"


def exception_of(net, kind):
    """(mtu, locked) of the path to the server after the router's error about such a packet."""
    client, server, router = net.nodes("client", "server", "router")
    source, destination = client.address(socket.AF_INET), server.address(socket.AF_INET)
    before = client.counters()
    if kind == "tcp":
        conn, peer = tcp_pair(client, server, socket.AF_INET)
        with client.capture("tcp") as packets:
            deliver(conn, peer, 1)
        quoted = bytearray(icmp.quote(packets.sent()[0]))
        # The next byte's sequence number may be in flight.
        quoted[24:28] = ((packets.sent()[0].seq + 1) % 2**32).to_bytes(4, "big")
        icmp.send_too_big(router, client, 1300, bytes(quoted))
    else:
        with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind((source, 0))
            icmp.send_too_big(router, client, 1300, icmp.udp_quote(source, udp.getsockname()[1], destination, 9))
    assert client.counters().since(before)["Icmp.InDestUnreachs"] == 1
    path = pmtu.path(client, destination)
    return path.mtu, path.locked


@pytest.mark.topology(ROUTED)
@pytest.mark.parametrize("mode, tcp, udp", [
    (0, (1300, False), (1300, False)),
    (1, (552, True), (552, True)),
    (2, (None, False), (None, False)),
    (3, (1300, False), (None, False)),
])
def test_ip_no_pmtu_disc_decides_which_errors_are_accepted(net, mode, tcp, udp):
    """0: all. 1: none as announced, the path gets min_pmtu and is locked. 2: none. 3: those of protocols that check
    them, as TCP checks the sequence number."""
    client = net["client"]
    client.pin({DISC: mode})

    assert exception_of(net, "tcp") == tcp
    client.run(["ip", "route", "flush", "cache"])
    assert exception_of(net, "udp") == udp


@pytest.mark.topology(NARROW)
@pytest.mark.parametrize("mode", [1, 2])
def test_tcp_sends_without_df_in_ip_no_pmtu_disc_modes_1_and_2(net, mode):
    """Modes 1 and 2 disable discovery for new sockets: the router fragments for the narrow link without an error, and
    the data arrives."""
    client, server = net.nodes("client", "server")
    client.pin({DISC: mode})
    offload.segment_in_software(client)
    conn, peer = tcp_pair(client, server, socket.AF_INET)
    with client.capture() as packets:
        deliver(conn, peer, 4000)

    assert pmtu.too_big(packets) == []
    assert {str(packet.ip.flags) for packet in packets.sent() if packet.segment and packet.length} == {""}
    assert server.counter("Ip.ReasmOKs") == 2


@pytest.mark.topology(ROUTED)
@pytest.mark.virtual_clock("crashes an affected kernel: needs its own machine")
def test_ip_no_pmtu_disc_3_drops_an_error_about_an_unregistered_protocol(net):
    """A fragmentation needed error that quotes protocol 253 is counted and dropped: "icmp: fix NULL pointer dereference
    in icmp_tag_validation()"."""
    client, server, router = net.nodes("client", "server", "router")
    client.pin({DISC: 3})
    source, destination = client.address(socket.AF_INET), server.address(socket.AF_INET)

    icmp.send_too_big(router, client, 1300, icmp.udp_quote(source, 9, destination, 9, protocol=253))

    assert client.counter("Icmp.InDestUnreachs") == 1
    assert pmtu.path(client, destination).mtu is None
    deliver(*tcp_pair(client, server, socket.AF_INET), 5000)
