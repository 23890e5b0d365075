"""What the inner packet's ECN field is once the tunnel's end has taken the outer header off: RFC 6040, 4.2."""

import socket
from typing import Union

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import LAN
from fixtures.tunnels import KINDS, V4, V6, TunnelKind, address, connect, statistics

pytestmark = pytest.mark.topology(LAN)

PORT = 7
NOT_ECT, ECT1, ECT0, CE = "Not-ECT", "ECT(1)", "ECT(0)", "CE"
CODEPOINTS = {NOT_ECT: 0, ECT1: 1, ECT0: 2, CE: 3}
DROPPED = "dropped, 1 receive error"
# RFC 6040, figure 4: by the inner field, then by the outer one.
FIGURE = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT0: NOT_ECT, ECT1: NOT_ECT, CE: DROPPED},
    ECT0: {NOT_ECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
    ECT1: {NOT_ECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
    CE: {NOT_ECT: CE, ECT0: CE, ECT1: CE, CE: CE},
}
# Of GRE's options none matters here, nor does the version of ERSPAN; what comes out of UDP by FOU or GUE is received as without it.
ROWS = {name: kind for name, kind in KINDS.items()
        if not kind.name.endswith(("seq", "csum", "key 7", "encaplimit", "erspan 0", "erspan 1", "fou", "gue"))}
# Level and option of TOS, and of the ancillary data with it (ip(7), ipv6(7)).
TOS = {V4: (socket.IPPROTO_IP, 1), V6: (socket.IPPROTO_IPV6, 67)}
RECEIVE_TOS = {V4: (socket.IPPROTO_IP, 13), V6: (socket.IPPROTO_IPV6, 66)}



def expected(kind: TunnelKind, outer: str, inner: str) -> Union[str, OneOf]:
    """Of IPsec RFC 4301 asks for less than RFC 6040, which updates it."""
    if kind.esp and FIGURE[inner][outer] not in (inner, CE):
        return OneOf((FIGURE[inner][outer], inner), "RFC 4301, 5.1.2.1 takes over CE alone, and drops nothing; RFC 6040, 5.1 updates it")
    return FIGURE[inner][outer]


ECN = Table("tunnels.ecn", "tunnel", "ECN of the outer and the inner header", "RFC 6040, figure 4; RFC 2863, ifInErrors", {
    name: {f"{outer} around {inner}": expected(kind, outer, inner) for outer in CODEPOINTS for inner in CODEPOINTS}
    for name, kind in ROWS.items()
})


class MarkedPath:
    """The server's socket inside the tunnel, and the client's, which sends to it."""

    def __init__(self, net, kind):
        self.kind, self.marks = kind, False
        self.client, self.server = net.nodes("client", "server")
        self.near, self.far = (host.socket(kind.inner, socket.SOCK_DGRAM) for host in (self.client, self.server))
        self.far.bind((address(kind.inner, 2), PORT))
        self.far.settimeout(5)
        self.far.setsockopt(*RECEIVE_TOS[kind.inner], 1)
        self.near.connect((address(kind.inner, 2), PORT))
        self.mark(NOT_ECT)
        self.send(b"first", NOT_ECT)
        assert self.receive() == (b"first", NOT_ECT)

    def mark(self, outer: str) -> None:
        """From now on packets have this in their outer header, as a router would mark them."""
        # By iptables: since some 7.x a rule of nft(8) with "ip6 ecn set" does nothing. What IPsec is to encrypt passes here, too.
        tool = "iptables-nft" if self.kind.outer == V4 else "ip6tables-nft"
        where = ("-R", "POSTROUTING", "1") if self.marks else ("-A", "POSTROUTING")
        self.client.run([tool, "-w", "-t", "mangle", *where, "-o", "to-server", "-d", self.server.address(self.kind.outer),
                         "-j", "TOS", "--set-tos", f"{CODEPOINTS[outer]}/3"])
        self.marks = True

    def send(self, data: bytes, inner: str) -> None:
        self.near.setsockopt(*TOS[self.kind.inner], CODEPOINTS[inner])
        self.near.send(data)

    def receive(self) -> tuple[bytes, str]:
        data, ancillary, _flags, _sender = self.far.recvmsg(100, 100)
        tos = next((value[0] for level, _kind, value in ancillary if level == RECEIVE_TOS[self.kind.inner][0]), 0)
        return data, {number: name for name, number in CODEPOINTS.items()}[tos & 3]

    def show(self, inner: str) -> str:
        before = statistics(self.server)
        self.send(b"data", inner)
        # Of one that can carry CE, and so is never dropped.
        self.send(b"after", ECT0)
        data, ecn = self.receive()
        errors = statistics(self.server).since(before).receive_errors
        if data == b"after":
            return f"dropped, {errors} receive error{'' if errors == 1 else 's'}"
        assert self.receive()[0] == b"after"
        return ecn if not errors else f"{ecn}, {errors} receive errors"


@pytest.mark.table(ECN)
@pytest.mark.parametrize("row", ECN.rows)
def test_tunnel_end_combines_both_ecn_fields(net, row, table):
    """Congestion that a router marked in the outer header reaches the receiver, or the packet is dropped."""
    kind = ROWS[row]
    connect(net, kind)
    receiver = MarkedPath(net, kind)
    marked = ""
    for column in table:
        outer, _around, inner = column.partition(" around ")
        if outer != marked:
            receiver.mark(outer)
            marked = outer
        table.saw(receiver.show(inner))
