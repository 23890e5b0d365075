"""The IP counters by the origin of the packet: RFC 4293, ipSystemStatsTable.

Each origin makes three packets. Neighbour discovery and multicast listener reports, which come by themselves, are left out.
"""

import socket

import pytest

from fixtures.table import Must, OneOf, Table
from fixtures.topologies import ROUTED
from netns import tcp_pair
from netns.hosts import reject, tunnel
from netns.packets import segment
from netns.wait import at_least, eventually

V4, V6 = socket.AF_INET, socket.AF_INET6
GROUP = {V4: "Ip", V6: "Ip6"}
FORWARDED = {V4: "Ip.ForwDatagrams", V6: "Ip6.OutForwDatagrams"}
COUNT = 3
PORT = 4000
EXPERIMENT = 253                            # an IP protocol for experiments: RFC 3692
# Packets of ICMPv6 that no test sends: listener reports, router and neighbour discovery.
HOUSEKEEPING = [f"Icmp6.OutType{kind}" for kind in (131, 132, 133, 135, 136, 143)]
BY_THE_HOST = {
    "OutRequests": "3",
    "OutTransmits": OneOf(("3", "no such counter"), "Linux has it since 6.7"),
    "forwarded": "0",
    "FragCreates": "0",
}
# The transport's packets and what encloses them are both supplied to IP by this host.
ENCLOSED = {**BY_THE_HOST, "OutRequests": Must("6", "the inner packets and those of the tunnel, RFC 4293: local IP user-protocols"),
            "OutTransmits": OneOf(("6", "no such counter"), "Linux has it since 6.7")}
COUNTED = Table("routing.counted", "origin of three packets", "counter", "RFC 4293, ipSystemStatsTable", {
    **{origin: BY_THE_HOST for origin in ("UDP", "connected UDP", "TCP", "ping", "raw", "raw with its own header", "echo reply",
                                          "ICMP error", "rejected with an ICMP error", "rejected with a reset")},
    "IP in IP": ENCLOSED,
    "GRE": ENCLOSED,
    "forwarded": {**BY_THE_HOST, "OutRequests": Must("0", "RFC 4293: does not include forwarded datagrams"), "forwarded": "3"},
    "UDP in two fragments each": {**BY_THE_HOST, "OutTransmits": OneOf(("6", "no such counter"), "Linux has it since 6.7"),
                                  "FragCreates": "6"},
})


def udp(net, family):
    client, server = net.nodes("client", "server")
    server.socket(family, socket.SOCK_DGRAM).bind((server.address(family), PORT))      # else it answers
    sock = client.socket(family, socket.SOCK_DGRAM)
    return lambda: [sock.sendto(b"x", (server.address(family), PORT)) for _ in range(COUNT)]


def connected_udp(net, family):
    client, server = net.nodes("client", "server")
    server.socket(family, socket.SOCK_DGRAM).bind((server.address(family), PORT))
    sock = client.socket(family, socket.SOCK_DGRAM)
    sock.connect((server.address(family), PORT))
    return lambda: [sock.send(b"x") for _ in range(COUNT)]


def tcp(net, family):
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def act():
        for _ in range(COUNT):
            conn.send(b"x")
            peer.recv(1)
    return act


def ping(net, family):
    return pings(*net.nodes("client", "server"), family)


def pings(sender, receiver, family):
    """Three echo requests, each answered."""
    sender.pin({"net.ipv4.ping_group_range": "0 0"})
    sock = sender.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_ICMP if family == V4 else socket.IPPROTO_ICMPV6)
    sock.settimeout(5)

    def act():
        for number in range(COUNT):
            sock.sendto(bytes([8 if family == V4 else 128, 0, 0, 0, 0, 0, 0, number]), (receiver.address(family), 0))
            sock.recv(100)
    return act


def raw(net, family):
    client, server = net.nodes("client", "server")
    sock = client.socket(family, socket.SOCK_RAW, EXPERIMENT)
    return lambda: [sock.sendto(b"x", (server.address(family), 0)) for _ in range(COUNT)]


def with_its_own_header(net, family):
    client, server = net.nodes("client", "server")
    return lambda: [segment.send_datagram(client, (client.address(family), 1), (server.address(family), PORT)) for _ in range(COUNT)]


def echo_reply(net, family):
    client, server = net.nodes("client", "server")
    return pings(server, client, family)


def refused(net, family):
    """Three datagrams of the server to the client, each answered with an ICMP error."""
    client, server = net.nodes("client", "server")
    sock = server.socket(family, socket.SOCK_DGRAM)
    sock.connect((client.address(family), PORT))

    def act():
        for number in range(1, COUNT + 1):
            sock.send(b"x")
            eventually("ICMP errors of the client", lambda: client.counter(f"Icmp{'6' if family == V6 else ''}.OutDestUnreachs"),
                       at_least(number), within=5)
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return act


def rejected(net, family):
    act = refused(net, family)

    def rejecting():
        with reject.rejecting(net.nodes("client")[0], family, "udp", "nft", "input"):
            act()
    return rejecting


def reset(net, family):
    client, server = net.nodes("client", "server")

    def act():
        with reject.resetting(client, family, PORT, "nft", "input"), server.capture("tcp") as packets:
            for number in range(COUNT):
                segment.send(server, (server.address(family), 5000 + number), (client.address(family), PORT), "S", 1)
            packets.until("3 resets", lambda seen: len([each for each in seen.received() if "R" in each.flags]), COUNT, within=5)
    return act


def in_a_tunnel(kind):
    def prepare(net, family):
        client, server = net.nodes("client", "server")
        kinds = {"ip": ("ipip", ()) if family == V4 else ("ip6tnl", ("mode", "ip6ip6")), "gre": ("gre" if family == V4 else "ip6gre", ())}
        name, options = kinds[kind]
        inner = {client: "203.0.113.1" if family == V4 else "2001:db8:9::1", server: "203.0.113.2" if family == V4 else "2001:db8:9::2"}
        for here, there in ((client, server), (server, client)):
            tunnel.add(here, "tunnel", name, "local", here.address(family), "remote", there.address(family), *options)
            # It joins no group and has no link-local address: so nothing is sent by itself.
            here.run(["ip", "-batch", "-"], stdin=f"""link set dev tunnel down multicast off addrgenmode none
                link set dev tunnel up
                address add {inner[here]} dev tunnel {"nodad" if family == V6 else ""}
                route add {inner[there]} dev tunnel
                """)
        server.socket(family, socket.SOCK_DGRAM).bind((inner[server], PORT))
        sock = client.socket(family, socket.SOCK_DGRAM)
        return lambda: [sock.sendto(b"x", (inner[server], PORT)) for _ in range(COUNT)]
    return prepare


def fragments(net, family):
    client, server = net.nodes("client", "server")
    sock = client.socket(family, socket.SOCK_DGRAM)
    return lambda: [sock.sendto(bytes(2000), (server.address(family), PORT)) for _ in range(COUNT)]


ORIGINS = {
    "UDP": udp, "connected UDP": connected_udp, "TCP": tcp, "ping": ping, "raw": raw, "raw with its own header": with_its_own_header,
    "echo reply": echo_reply, "ICMP error": refused, "rejected with an ICMP error": rejected, "rejected with a reset": reset,
    "IP in IP": in_a_tunnel("ip"), "GRE": in_a_tunnel("gre"), "forwarded": udp, "UDP in two fragments each": fragments,
}


@pytest.mark.table(COUNTED)
@pytest.mark.topology(ROUTED)
@pytest.mark.parametrize("row", COUNTED.rows)
def test_each_packet_is_counted_once_by_its_origin(net, family, row, table):
    """Whatever socket, tunnel or filter sent it; forwarded ones by the router."""
    counted = net.nodes("router" if row == "forwarded" else "client")[0]
    act = ORIGINS[row](net, family)
    before = counted.counters()

    act()

    change = counted.counters().since(before)
    by_itself = sum(change[name] for name in HOUSEKEEPING) if family == V6 else 0
    kernels = counted.counters().names()
    for column in table:
        name = FORWARDED[family] if column == "forwarded" else f"{GROUP[family]}.{column}"
        if name not in kernels:
            table.saw("no such counter")
        else:
            table.saw(str(change[name] - by_itself * (column in ("OutRequests", "OutTransmits"))))
