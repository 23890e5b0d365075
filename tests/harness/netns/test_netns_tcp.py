"""TCP_INFO has all fields that the kernel returns."""

import socket

import pytest

import netns
from fixtures.topologies import LAN
from netns.traffic.tcp import TcpInfo

# Offsets in struct tcp_info of Linux 6.18, some of each size.
OFFSETS = {"rto": 8, "unacked": 24, "pmtu": 60, "advmss": 84, "total_retrans": 100, "pacing_rate": 104, "bytes_received": 128,
           "min_rtt": 148, "sndbuf_limited": 184, "delivered_ce": 196, "bytes_retrans": 208, "snd_wnd": 228, "rehash": 236,
           "total_rto": 240, "total_rto_time": 244, "received_ce_bytes": 272}


@pytest.mark.parametrize("name, at", OFFSETS.items())
def test_each_field_is_where_the_header_has_it(name, at):
    data = bytearray(280)
    data[at] = 77
    assert getattr(TcpInfo(bytes(data)), name) == 77


def test_bit_fields_are_those_of_the_header():
    info = TcpInfo(bytes([1, 0, 0, 0, 0, 0, 0x97, 0b101]))
    assert (info.state, info.snd_wscale, info.rcv_wscale) == ("ESTABLISHED", 7, 9)
    assert (info.delivery_rate_app_limited, info.fastopen_client_fail) == (1, 2)


def test_a_connection_tells_what_it_has_done(family):
    with netns.build(LAN) as network:
        client, server = network.nodes("client", "server")
        client.pin({"net.ipv4.tcp_timestamps": 1})
        conn, peer = netns.tcp_pair(client, server, family)
        netns.deliver(conn, peer, 1000)
        netns.eventually("unacknowledged segments", lambda: netns.tcp_info(conn).unacked, 0, within=5)
        info = netns.tcp_info(conn)

    assert (info.state, info.bytes_sent, info.bytes_acked, info.total_retrans) == ("ESTABLISHED", 1000, 1001, 0)
    assert info.advmss == info.snd_mss == (1448 if family == socket.AF_INET else 1428)
    assert info.snd_wnd > 1000 and info.rtt > 0
    assert str(info) == f"TcpInfo(state='ESTABLISHED', probes=0, unacked=0, snd_mss={info.snd_mss}, pmtu=1500)"


def test_a_field_that_the_kernel_does_not_have_is_a_missing_feature():
    info = TcpInfo(bytes(232))
    assert info.snd_wnd == 0
    with pytest.raises(netns.MissingFeature, match="the kernel's struct tcp_info of 232 bytes has no tcpi_rcv_wnd"):
        _ = info.rcv_wnd
    with pytest.raises(AttributeError, match="struct tcp_info has no field nosuch"):
        _ = info.nosuch
