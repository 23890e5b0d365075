"""Broadcasts stay on their link, whatever the routes say: RFC 919, RFC 922; __mkroute_output()."""

import socket

import pytest

from fixtures.topologies import ROUTED

pytestmark = pytest.mark.topology(ROUTED)

EVERYBODY, SUBNET = "255.255.255.255", "192.0.2.255"
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
IP_MTU_DISCOVER, DONT = 10, 0


def broadcaster(host):
    sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return sock


@pytest.mark.parametrize("bound", ["unbound", "to an address", "to a device"])
@pytest.mark.parametrize("to", [EVERYBODY, SUBNET], ids=["limited", "subnet"])
def test_broadcast_is_sent_to_the_broadcast_mac_address(net, to, bound):
    """It is not sent to the gateway of the default route, as by kernels without "net: ipv4: fix regression in
    local-broadcast routes"."""
    client = net["client"]
    sock = broadcaster(client)
    if bound == "to an address":
        sock.bind((client.address(socket.AF_INET), 0))
    elif bound == "to a device":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"to-router")

    with client.capture("udp") as packets:
        sock.sendto(b"anybody?", (to, 4000))

    packet = packets.sent().only()
    assert (packet.layers.dst, packet.ip.dst, packet.ip.src) == (BROADCAST_MAC, to, client.address(socket.AF_INET))


@pytest.mark.parametrize("kind", ["broadcast", "unicast", "multicast"])
def test_route_mtu_applies_to_broadcast_unicast_and_multicast(net, kind):
    """Datagrams are fragmented to it. Kernels without "net: ipv4: fix incorrect MTU in broadcast routes" ignore it for
    broadcast."""
    client = net["client"]
    to, route = {
        "broadcast": (SUBNET, ["broadcast", SUBNET, "dev", "to-router", "table", "local"]),
        "unicast": ("198.51.100.1", ["198.51.100.0/24", "via", "192.0.2.2"]),
        "multicast": ("224.0.1.1", ["multicast", "224.0.1.0/24", "dev", "to-router"]),
    }[kind]
    client.run(["ip", "route", "replace", *route, "src", client.address(socket.AF_INET), "mtu", "1300"])
    sock = broadcaster(client)
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DONT)

    with client.capture() as packets:
        sock.sendto(bytes(1322), (to, 4000))

    # 1330 bytes with the UDP header: packets of at most 1300, fragments of multiples of eight bytes.
    assert [packet.ip.len for packet in packets.sent() if packet.ip and packet.ip.dst == to] == [1300, 70]
