"""Datagrams of every size through each of IPVS's tunnels to a real server: how they travel, and what the client is told."""

import itertools
import select
import socket
from typing import Union

import pytest

from fixtures.balanced import BALANCED, FIRST_PORT, GUE_PORT, NARROW_MTU, Director, Method
from fixtures.table import Measured, Table
from fixtures.tunnels import GRE, GRE_OPTION, GUE, IP_HEADER, UDP, V4, V6, outer
from netns.attempt import errno_of
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.packets import pmtu

pytestmark = pytest.mark.topology(BALANCED)

DISCOVER = {V4: (socket.IPPROTO_IP, 10), V6: (socket.IPPROTO_IPV6, 23)}     # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
DONT, DO = 0, 2
REMOTE_CHECKSUM = 4 + 4                         # draft-herbert-remotecsumoffload: private flags, offset and field
GUE_WORDS = f"-i --tun-type gue --tun-port {GUE_PORT}"
METHODS = (
    Method("TUN ipip", "-i --tun-type ipip", 0),
    Method("TUN gue", f"{GUE_WORDS} --tun-nocsum", UDP + GUE), Method("TUN gue", f"{GUE_WORDS} --tun-csum", UDP + GUE),
    Method("TUN gue", f"{GUE_WORDS} --tun-remcsum", UDP + GUE + REMOTE_CHECKSUM),
    Method("TUN gre", "-i --tun-type gre --tun-nocsum", GRE), Method("TUN gre", "-i --tun-type gre --tun-csum", GRE + GRE_OPTION),
)
ROWS = {f"{method.name} {method.words.rpartition('--tun-')[2].replace('type ipip', '')}".strip()
        + f", IPv{4 if family == V4 else 6} in IPv{4 if outer == V4 else 6}": (method, family, outer)
        for method in METHODS for family in (V4, V6) for outer in (V4, V6)}


def sizes(method: Method, family: socket.AddressFamily, outer: socket.AddressFamily) -> dict[str, tuple[int, int]]:
    """By column: the bytes of the datagram's data, and IP_PMTUDISC_DONT or _DO."""
    full = NARROW_MTU - method.overhead(outer) - IP_HEADER[family] - UDP
    return {"empty": (0, DO), "1 byte": (1, DO), "MTU - 1": (full - 1, DO), "MTU": (full, DO), "MTU without DF": (full, DONT),
            "MTU + 1": (full + 1, DO), "MTU + 1 without DF": (full + 1, DONT), "60000 bytes": (60000, DONT)}


def expected(method: Method, family: socket.AddressFamily, outer: socket.AddressFamily, size: int, discover: int) -> Union[str, Measured]:
    """ipvs-sysctl.rst, pmtu_disc: the client is told what fits, and only then; without DF the outer packet is fragmented."""
    inside = IP_HEADER[family] + UDP + size
    mtu = NARROW_MTU - method.overhead(outer)
    if size == 60000:
        return Measured("the client's fragments are put together and taken apart again: no document says how")
    if inside <= mtu:
        return f"echoed, {inside + method.overhead(outer)}"
    if discover == DO:
        return f"too big for {mtu}, then EMSGSIZE"
    if family == V6:
        return f"too big for {mtu}, then echoed"
    return f"echoed, {outer_fragments(inside + method.overhead(outer), outer)}"


def outer_fragments(length: int, outer: socket.AddressFamily) -> str:
    """The fragments of the outer packet: RFC 791, 3.2; RFC 8200, 4.5."""
    header = IP_HEADER[outer] + (8 if outer == V6 else 0)
    room = (NARROW_MTU - header) & ~7
    return f"{header + room} + {header + length - IP_HEADER[outer] - room}"


SIZES = Table("tunnels.ipvs", "tunnel", "datagram", "the headers of the tunnel's RFC; ipvs-sysctl.rst, pmtu_disc; RFC 1191, RFC 8201", {
    name: {column: expected(*row, *size) for column, size in sizes(*row).items()} for name, row in ROWS.items()
})


class TunnelledClient:
    """A client's datagrams, and their packets between the director and the server."""

    def __init__(self, director: Director) -> None:
        self.director = director
        self.server = director.servers[0]
        self.far = self.server.socket(director.family, socket.SOCK_DGRAM)
        self.far.bind((director.virtual, FIRST_PORT))

    def show(self, size: int, discover: int) -> str:
        self.director.forget()
        near = self.director.client.socket(self.director.family, socket.SOCK_DGRAM)
        near.setsockopt(*DISCOVER[self.director.family], discover)
        near.connect((self.director.virtual, FIRST_PORT))
        data = bytes(itertools.islice(itertools.cycle(range(251)), size))
        outcome, lengths, told = self.trip(near, data)
        if not told:
            return f"{outcome}, {lengths}"
        return f"too big for {told[0]}, then {self.trip(near, data)[0]}"

    def trip(self, near: socket.socket, data: bytes) -> tuple[str, str, list]:
        """What became of a datagram, the lengths of its packets to the server, and the MTUs that the client was told."""
        with self.director.client.capture() as at_client, self.server.capture() as at_server:
            outcome = errno_of(self.echo, near, data)
        ends = (self.director.host.address(self.director.outer, peer="server1"), self.server.address(self.director.outer))
        lengths = [packet.frame.length - 14 for packet in outer(at_server.received(), *ends) if packet.interface == "to-director"]
        text = " + ".join(map(str, lengths)) if len(lengths) < 4 else f"{len(lengths)} packets"
        return outcome, text or "nothing", [pmtu.announced(error) for error in pmtu.too_big(at_client.received())]

    def echo(self, near: socket.socket, data: bytes) -> str:
        near.send(data)
        for receiver in (self.far, near):
            # Packets pass the director at once.
            if not select.select([receiver], [], [], 0.5)[0]:
                return "lost"
            arrived, sender = receiver.recvfrom(1 << 16)
            if arrived != data:
                return "damaged"
            if receiver is self.far:
                self.far.sendto(arrived, sender)
        return "echoed"


@pytest.mark.table(SIZES)
@pytest.mark.parametrize("row", SIZES.rows)
def test_datagram_reaches_the_real_server_or_its_client_is_told(net, row, table):
    """The packets on the way are as long as the datagram and the tunnel's headers; the answer comes back without the tunnel. Of what does
    not fit, the client learns the tunnel's MTU, unless it may be fragmented."""
    method, family, outer = ROWS[row]
    for host in net.hosts.values():
        host.pin(NO_ICMP_LIMITS)
    director = Director(net, method, "port", family, outer)
    director.start([], [FIRST_PORT])
    director.restore(f"-d {director.which(FIRST_PORT, 1, '-u')}")
    client = TunnelledClient(director)
    for column in table:
        table.saw(client.show(*sizes(method, family, outer)[column]))
