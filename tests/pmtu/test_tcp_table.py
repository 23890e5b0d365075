"""TCP over a path whose MTU has become smaller: when each connection learns it, with and without segmentation offload."""

import socket

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import ROUTED
from netns import deliver, tcp_info, tcp_pair
from netns.hosts import offload
from netns.packets import icmp

pytestmark = pytest.mark.topology(ROUTED)

FAMILIES = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}
LINK, LEARNED, AGAIN = 1500, 1300, 1290
# IP, TCP, and its timestamps option (RFC 7323).
HEADERS = {"IPv4": 20 + 20 + 12, "IPv6": 40 + 20 + 12}
LEARNS = ("before it connects", "by itself", "by another socket", "by itself, then smaller", "by itself, then larger", "by the other end")
AMOUNTS = {"1 byte": lambda mss: 1, **{f"{count} MSS {offset:+}": lambda mss, count=count, offset=offset: count * mss + offset
                                       for count in (1, 2, 10) for offset in (-1, 0, 1)}, "50 MSS": lambda mss: 50 * mss}


def known(learns):
    """The path MTU that counts: RFC 1191, 3; RFC 8201, 4. What the other end has learned is not this one's (RFC 9293, 3.7.5)."""
    return {"by itself, then smaller": AGAIN, "by the other end": LINK}.get(learns, LEARNED)


def expected(name, learns, offloaded, amount):
    """No packet exceeds the path MTU (RFC 8201, 4), and no data waits for smaller packets than it allows (RFC 9293, 3.7.1)."""
    mtu = known(learns)
    size = AMOUNTS[amount](mtu - HEADERS[name]) + HEADERS[name]
    largest = "" if offloaded else f", largest {min(size, mtu)}"
    text = f"arrived, PMTU {mtu}{largest}"
    if learns == "by another socket" and size <= mtu:
        return OneOf((text, f"arrived, PMTU {LINK}{largest}"), "the connection need not learn before it sends more")
    return text


SOURCE = "RFC 1191, 3 and 6.4; RFC 8201, 4; RFC 9293, 3.7.5"
TABLE = Table("pmtu.tcp", "family, offload, how it learns of a path MTU of 1300", "data at once", SOURCE, {
    f"{name}, {'GSO' if offloaded else 'segments'}, {learns}": {amount: expected(name, learns, offloaded, amount) for amount in AMOUNTS}
    for name in FAMILIES for offloaded in (True, False) for learns in LEARNS})


def tell(net, family, host, mtu, conn=None, destination=""):
    """The router tells the host about the next packet of its connection, or of a UDP socket to the destination."""
    if conn is None:
        udp = host.socket(family, socket.SOCK_DGRAM)
        udp.bind((host.address(family), 0))
        quoted = icmp.udp_quote(*udp.getsockname()[:2], destination, 9)
    else:
        with host.capture("tcp") as packets:
            deliver(*conn, 1)
        quoted = icmp.quote_next(packets.sent().which("with data", lambda packet: packet.length)[0])
    icmp.send_too_big(net["router"], host, mtu, quoted)


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_tcp_sends_segments_of_the_path_mtu_it_has_learned(net, row, table):
    """The largest packet of each connection, its path MTU, and that its data arrives."""
    name, how, learns = row.split(", ", 2)
    family = FAMILIES[name]
    client, server = net.nodes("client", "server")
    if how == "segments":
        offload.segment_in_software(client)
        offload.segment_in_software(server)
    for column in table:
        for host in (client, server):
            host.run(["ip", "-4" if name == "IPv4" else "-6", "route", "flush", "cache"])
        if learns == "before it connects":
            tell(net, family, client, LEARNED, destination=server.address(family))
        conn, peer = tcp_pair(client, server, family)
        if learns.startswith("by itself"):
            for mtu in [LEARNED, *({"then smaller": [AGAIN], "then larger": [LEARNED + 100]}.get(learns.partition(", ")[2], []))]:
                tell(net, family, client, mtu, conn=(conn, peer))
        elif learns == "by another socket":
            tell(net, family, client, LEARNED, destination=server.address(family))
        elif learns == "by the other end":
            tell(net, family, server, LEARNED, conn=(peer, conn))
        with client.capture("tcp") as packets:
            deliver(conn, peer, AMOUNTS[column](known(learns) - HEADERS[name]))
        largest = max(packet.frame.length - 14 for packet in packets.sent().some())
        table.saw(f"arrived, PMTU {tcp_info(conn).pmtu}" + (f", largest {largest}" if how == "segments" else ""))
        conn.close()
        peer.close()
