"""Datagrams of every size through every kind of tunnel: each arrives intact, in as many packets as its size needs."""

import itertools
import select
import socket
from typing import Union

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import LAN
from fixtures.tunnels import IP_HEADER, KINDS, UDP, V4, V6, TunnelKind, address, connect, outer, statistics
from netns.attempt import errno_of

pytestmark = pytest.mark.topology(LAN)

PORT = 7
FRAGMENT_HEADER = {V4: 0, V6: 8}       # RFC 8200, 4.5; IPv4 has its fields in the header (RFC 791)
# Level, option and value: IP_MTU_DISCOVER with IP_PMTUDISC_DONT or _DO, IPV6_MTU_DISCOVER; IP_MTU, IPV6_MTU (ip(7), ipv6(7)).
DISCOVER = {V4: (socket.IPPROTO_IP, 10), V6: (socket.IPPROTO_IPV6, 23)}
MTU = {V4: (socket.IPPROTO_IP, 14), V6: (socket.IPPROTO_IPV6, 24)}
DONT, DO = 0, 2
# RFC 768: the length is 16 bits, and that of IPv4 includes the IP header (RFC 791, 3.1).
LARGEST = {V4: 65535 - 20 - UDP, V6: 65535 - UDP}


def sizes(kind: TunnelKind) -> dict[str, tuple[int, int]]:
    """By column: the bytes of the datagram's data, and IP_PMTUDISC_DONT or _DO."""
    full = kind.mtu - IP_HEADER[kind.inner] - UDP
    return {
        "empty": (0, DO), "1 byte": (1, DO), "MTU - 1": (full - 1, DO), "MTU": (full, DO), "MTU + 1 with DF": (full + 1, DO),
        "MTU - 1 without DF": (full - 1, DONT), "MTU without DF": (full, DONT), "MTU + 1": (full + 1, DONT),
        "two full fragments": (2 * room(kind) - UDP, DONT), "1 byte more": (2 * room(kind) - UDP + 1, DONT),
        "largest": (LARGEST[kind.inner], DONT),
    }


def room(kind: TunnelKind) -> int:
    """Bytes of data in a fragment that is not the last one: a multiple of eight."""
    return (kind.mtu - IP_HEADER[kind.inner] - FRAGMENT_HEADER[kind.inner]) & ~7


def packets_of(kind: TunnelKind, size: int, last: int = 0) -> list[int]:
    """The lengths of the packets on the wire of a datagram with so much data: each fragment has the tunnel's headers. `last` is how much
    data the last one has at most, 0 for as much as fits."""
    header, rest = IP_HEADER[kind.inner], UDP + size
    if header + rest <= kind.mtu:
        return [kind.length(header + rest)]
    header += FRAGMENT_HEADER[kind.inner]
    last = last or kind.mtu - header
    count = max(-(-(rest - last) // room(kind)), 1)
    return [kind.length(header + room(kind))] * count + [kind.length(header + rest - count * room(kind))]


def expected(kind: TunnelKind, size: int, discover: int) -> Union[str, OneOf]:
    lengths = packets_of(kind, size)
    if len(lengths) > 1 and discover == DO:
        return f"EMSGSIZE, MTU {kind.mtu}, nothing sent"
    # The last fragment's data may have any length; ip6_append_data() gives it no more than the others.
    texts = dict.fromkeys(f"intact both ways in {listed(each)}" for each in (lengths, packets_of(kind, size, last=room(kind))))
    if len(texts) > 1 and kind.inner == V6:
        return OneOf(tuple(texts), "RFC 8200, 4.5 leaves to the source how it divides the data")
    return [*texts][0]


def listed(lengths: list[int]) -> str:
    """The lengths of packets: "3 x 1500 + 44"."""
    runs = [(length, len(list(run))) for length, run in itertools.groupby(lengths)]
    return " + ".join(f"{count} x {length}" if count > 1 else f"{length}" for length, count in runs) or "nothing"


SIZES = Table("tunnels.sizes", "tunnel", "datagram", "the headers of the tunnel's RFC, RFC 791 3.2 and RFC 8200 4.5; ip(7)", {
    name: {column: expected(kind, *size) for column, size in sizes(kind).items()} for name, kind in KINDS.items()
})


class Trip:
    """A datagram through the tunnel and back, and what of it the server saw on the wire."""

    def __init__(self, net, kind):
        self.kind = kind
        self.client, self.server = net.nodes("client", "server")
        self.ends = [host.address(kind.outer) for host in (self.client, self.server)]
        self.near, self.far = (host.socket(kind.inner, socket.SOCK_DGRAM) for host in (self.client, self.server))
        self.far.bind((address(kind.inner, 2), PORT))
        self.near.connect((address(kind.inner, 2), PORT))
        # The first packet asks for the neighbour.
        self.exchange(b"first")

    def exchange(self, data: bytes) -> str:
        """"intact", or what became of it."""
        self.near.send(data)
        for there, receiver in (("there", self.far), ("back", self.near)):
            if not select.select([receiver], [], [], 5)[0]:
                return f"lost on the way {there}"
            arrived, sender = receiver.recvfrom(1 << 16)
            if arrived != data:
                return f"damaged on the way {there}"
            if receiver is self.far:
                self.far.sendto(arrived, sender)
        return "intact"

    def show(self, size: int, discover: int) -> str:
        for each in (self.near, self.far):
            each.setsockopt(*DISCOVER[self.kind.inner], discover)
        before = [statistics(host) for host in (self.client, self.server)]
        with self.server.capture() as packets:
            outcome = errno_of(self.exchange, bytes(itertools.islice(itertools.cycle(range(251)), size)))
            if outcome == "EMSGSIZE":
                # What comes after it shows that nothing else came.
                assert self.exchange(b"after") == "intact"
        there, back = ([packet.frame.length - 14 for packet in outer(packets, *ends)] for ends in (self.ends, self.ends[::-1]))
        if outcome == "EMSGSIZE":
            sent = "nothing sent" if len(there) == 1 else f"sent {listed(there[:-1])}"
            return f"EMSGSIZE, MTU {self.near.getsockopt(*MTU[self.kind.inner])}, {sent}"
        after = [statistics(host).since(earlier) for host, earlier in zip((self.client, self.server), before)]
        return f"{outcome} both ways in {listed(there)}{'' if back == there else f' and {listed(back)}'}{miscounted(after, there, back)}"


def miscounted(after, there, back) -> str:
    """What the devices did not count: RFC 2863, ifInUcastPkts and ifOutUcastPkts."""
    counted = [(each.sent, each.received, each.receive_errors, each.receive_drops, each.send_errors, each.send_drops) for each in after]
    wanted = [(len(there), len(back), 0, 0, 0, 0), (len(back), len(there), 0, 0, 0, 0)]
    return "" if counted == wanted else f", counted {counted}"


@pytest.mark.table(SIZES)
@pytest.mark.parametrize("row", SIZES.rows)
def test_datagram_passes_the_tunnel_intact(net, row, table):
    """Its packets on the wire are as long as it and the tunnel's headers, one for each fragment. Without fragmentation the sender learns
    the tunnel's MTU (EMSGSIZE, ip(7)). Both devices count each packet once, and no error."""
    kind = KINDS[row]
    connect(net, kind)
    trip = Trip(net, kind)
    for column in table:
        table.saw(trip.show(*sizes(kind)[column]))
