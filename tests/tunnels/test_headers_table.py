"""The outer header of every kind of tunnel: TTL, TOS with ECN, and DF, by the tunnel's options and the inner header."""

import socket
from typing import NamedTuple, Union

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import LAN
from fixtures.tunnels import DEVICE, KINDS, V4, V6, TunnelKind, address, commands, quiet, run

pytestmark = pytest.mark.topology(LAN)

CE, ECT0 = 3, 2
MODES = "RFC 6040, 4.1: normal mode copies ECN, compatibility mode leaves Not-ECT; RFC 3168, 9.1.1 makes CE ECT(0)"
# Level and option of a socket's TTL, TOS and PMTU discovery (ip(7), ipv6(7)).
OPTIONS = {V4: ((socket.IPPROTO_IP, 2), (socket.IPPROTO_IP, 1), (socket.IPPROTO_IP, 10)),
           V6: ((socket.IPPROTO_IPV6, 16), (socket.IPPROTO_IPV6, 67), (socket.IPPROTO_IPV6, 23))}
FAR = {V4: "203.0.113.{}", V6: "2001:db8:9::{}"}
FAR_NETWORK = {V4: "203.0.113.0/24", V6: "2001:db8:9::/64"}
BASIC = ("ipip", "sit", "sit mode ipip", "gre", "gretap", "erspan 2", "vxlan", "geneve", "ip6tnl", "ip6gre", "ip6gretap", "ip6erspan 2")
ROWS = {name: kind for name, kind in KINDS.items() if kind.name in BASIC}


class HeaderCase(NamedTuple):
    """The tunnel's options, None where it has the default, and the inner packet's fields."""

    ttl: Union[int, str, None] = None
    tos: Union[int, str, None] = None
    df: str = ""
    inner_ttl: int = 99
    inner_tos: int = 0
    inner_df: bool = False

    @property
    def option(self) -> "HeaderCase":
        return HeaderCase(self.ttl, self.tos, self.df)


def over_udp(kind: TunnelKind) -> bool:
    return kind.name in ("vxlan", "geneve")


def cases(kind: TunnelKind) -> dict[str, HeaderCase]:
    found = {f"ttl {ttl or 'default'} of {inner}": HeaderCase(ttl=ttl, inner_ttl=inner)
             for ttl in (None, "inherit", 1, 200) for inner in (7, 255)}
    # DSCP EF (RFC 3246) with each ECN codepoint (RFC 3168).
    found.update({f"tos {name} of {inner:#04x}": HeaderCase(tos=tos, inner_tos=inner)
                  for name, tos in (("default", None), ("inherit", "inherit"), ("0x28", 0x28)) for inner in (0, 0xB8, 0xB9, 0xBA, 0xBB)})
    if kind.outer == V4:
        options = ("df unset", "df set", "df inherit") if over_udp(kind) else ("pmtudisc", "nopmtudisc")
        if kind.name in ("gre", "gretap", "erspan 2"):
            options += ("nopmtudisc ignore-df",)
        found.update({f"{df} of {'DF' if inner else 'no DF'}": HeaderCase(df=df, inner_df=inner)
                      for df in options for inner in ((True, False) if kind.inner == V4 else (False,))})
    return found


def words(kind: TunnelKind, case: HeaderCase) -> str:
    """The options as ip-link(8) has them."""
    of_ip6 = kind.words.startswith("ip6")
    ttl = "" if case.ttl is None else f"hoplimit {0 if case.ttl == 'inherit' else case.ttl}" if of_ip6 else f"ttl {case.ttl}"
    tos = "" if case.tos is None else f"{'tclass' if of_ip6 else 'tos'} {case.tos if case.tos == 'inherit' else hex(case.tos)}"
    return f"{ttl} {tos} {case.df}"


def ttl(kind: TunnelKind, case: HeaderCase) -> int:
    """ip-tunnel(8): the default is to inherit the TTL, for IPv6 tunnels 64; ip-link(8): for VXLAN and Geneve the host's default."""
    if isinstance(case.ttl, int):
        return case.ttl
    return case.inner_ttl if case.ttl == "inherit" or not over_udp(kind) and kind.outer == V4 else 64


def tos(kind: TunnelKind, case: HeaderCase) -> list[int]:
    """ip-tunnel(8): the DSCP is 0 by default. The ECN field is the inner packet's (RFC 6040, 4.1); for CE RFC 3168, 9.1.1 has ECT(0).
    GRE over IPv6 has no code for ECN of its own: Not-ECT, which RFC 6040, 4.1 calls the compatibility mode."""
    dscp = {None: 0, "inherit": case.inner_tos & ~3}.get(case.tos, case.tos)
    ecn = case.inner_tos & 3
    fields = [ecn, ECT0] if ecn == CE else [ecn]
    if ecn and kind.words.startswith(("ip6gre", "ip6erspan")) and case.tos != "inherit":
        fields.append(0)
    return [dscp | field for field in fields]


def df(kind: TunnelKind, case: HeaderCase) -> list[bool]:
    """ip-link(8): with path MTU discovery, which a fixed TTL needs, DF is set; without it, it is the inner packet's unless that is
    ignored."""
    if over_udp(kind):
        if case.df == "df inherit" and kind.inner == V6:
            return [False, True]            # IPv6 has no such bit, and no router fragments it
        return [case.df == "df set" or case.df == "df inherit" and case.inner_df]
    return [case.df == "nopmtudisc" and case.inner_df or not case.df.startswith("nopmtudisc")]


def shown(kind: TunnelKind, ttl: int, tos: int, df: bool) -> str:
    return f"ttl {ttl}, tos {tos:#04x}" + (", DF" if df else ", no DF") * (kind.outer == V4)


def expected(kind: TunnelKind, case: HeaderCase) -> Union[str, OneOf]:
    texts = tuple(shown(kind, ttl(kind, case), each, bit) for each in tos(kind, case) for bit in df(kind, case))
    reason = MODES if case.inner_tos & 3 else "ip-link(8) copies DF from the IP header, which IPv6 has not"
    return OneOf(texts, reason) if len(texts) > 1 else texts[0]


HEADERS = Table("tunnels.headers", "tunnel", "options and inner header", "ip-link(8), ip-tunnel(8), RFC 6040", {
    name: {column: expected(kind, case) for column, case in cases(kind).items()} for name, kind in ROWS.items()
})


def far(kind: TunnelKind, number: int) -> str:
    return FAR[kind.outer].format(number)


def add_tunnels(client, server, kind) -> dict[HeaderCase, int]:
    """A tunnel for each set of options, each to an address of its own behind the server: their numbers."""
    quiet(client, kind.inner)
    options = dict.fromkeys(case.option for case in cases(kind).values())
    numbers = {option: number for number, option in enumerate(options, 1)}
    lines = [f"route add {FAR_NETWORK[kind.outer]} via {server.address(kind.outer)}"]
    for option, number in numbers.items():
        lines += commands(kind, 1, client.address(kind.outer), far(kind, number), words(kind, option), number)
    run(client, kind, lines)
    if kind.inner == V6:
        client.await_address(address(V6, 1, len(numbers)))
    return numbers


def fields(family: socket.AddressFamily, header: bytes) -> tuple[int, int, bool]:
    """TTL, TOS and DF."""
    if family == V4:
        return header[8], header[1], bool(header[6] & 0x40)
    return header[7], int.from_bytes(header[:2], "big") >> 4 & 0xFF, False


def show(client, kind, case, number) -> str:
    with client.socket(kind.inner, socket.SOCK_DGRAM) as udp:
        for option, value in zip(OPTIONS[kind.inner], (case.inner_ttl, case.inner_tos, 2 if case.inner_df else 0)):
            udp.setsockopt(*option, value)
        with client.capture() as packets:
            udp.sendto(b"data", (address(kind.inner, 2, number), 9))
            packets.until("a tunnelled packet", lambda seen: tunnelled(seen, kind, number), within=5)
    packet = tunnelled(packets, kind, number).only().frame.data[14:]
    inner = fields(kind.inner, packet[kind.overhead:])
    kept = inner == (case.inner_ttl, case.inner_tos, case.inner_df)
    return shown(kind, *fields(kind.outer, packet)) + ("" if kept else f", inside {inner}")


def tunnelled(packets, kind, number):
    return packets.sent().which(f"to {far(kind, number)}", lambda packet: packet.destination == far(kind, number)
                                and not packet.interface.startswith(DEVICE))


@pytest.mark.table(HEADERS)
@pytest.mark.parametrize("row", HEADERS.rows)
def test_outer_header_is_as_the_tunnel_is_configured(net, row, table):
    """One datagram in a tunnel of its own for each set of options; the inner header stays as the sender made it."""
    client, server = net.nodes("client", "server")
    kind = ROWS[row]
    numbers = add_tunnels(client, server, kind)
    for column in table:
        case = cases(kind)[column]
        table.saw(show(client, kind, case, numbers[case.option]))
