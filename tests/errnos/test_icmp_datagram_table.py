"""Who is told of which ICMP error: sockets for datagrams, each with every type and code (RFC 1122, 4.1.3.3; ip(7), udp(7), raw(7))."""

import select
import socket
import struct
from dataclasses import dataclass

import pytest

from fixtures.icmp_errors import CODES, NO_ERRORS, TOO_BIG, UNSAID, V4, V6, meaning
from fixtures.table import Measured, Must, Table
from fixtures.topologies import ROUTED
from netns.attempt import errno_name, so_error
from netns.packets import errqueue, icmp, pmtu

pytestmark = pytest.mark.topology(ROUTED)

EXPERIMENT, UDPLITE, IP_HDRINCL = 253, 136, 3
PORT, OTHER, REMOTE, MTU = 5000, 5001, 9, 1300
PATH = ", path MTU"
ECHO = {V4: 8, V6: 128}
PING = {V4: socket.IPPROTO_ICMP, V6: socket.IPPROTO_ICMPV6}
BEYOND = {V4: "203.0.113.{}", V6: "2001:db8:ff::{:x}"}
ELSEWHERE = {V4: "203.0.113.254", V6: "2001:db8:ff::fe"}
SECOND = {V4: "192.0.2.99", V6: "2001:db8:1::99"}


@dataclass(frozen=True)
class Socket:
    """A socket for datagrams of the kind "UDP", "UDP-Lite", "ping", or "raw" for `protocol`. `port` is the ping socket's identifier.
    The ICMP errors are about a packet of the kind `quoted`, from the client's first address and PORT."""

    kind: str
    quoted: str
    connected: bool = True
    recverr: bool = True
    port: int = PORT
    elsewhere: bool = False
    second_address: bool = False
    host: str = "client"
    closed: bool = False
    protocol: int = EXPERIMENT
    hdrincl: bool = False


SENDERS = {
    f"{kind}, {'connected' if connected else 'not connected'}{', IP_RECVERR' if recverr else ''}":
    Socket(kind, kind, connected, recverr)
    for kind in ("UDP", "UDP-Lite", "raw", "ping") for connected in (True, False) for recverr in (True, False)
}
SENDERS["raw, IP_HDRINCL, IP_RECVERR"] = Socket("raw", "raw", connected=False, hdrincl=True)
# Sockets that ask for all errors, but did not send the quoted packet.
OTHERS = {
    **{f"{kind}, {what}": Socket(kind, kind, **difference) for kind in ("UDP", "raw", "ping") for what, difference in {
        "bound to another address": {"second_address": True, "connected": False}, "connected to another address": {"elsewhere": True},
        "closed": {"closed": True}, "of another host": {"host": "server"}}.items()},
    "UDP, another port": Socket("UDP", "UDP", port=OTHER), "ping, another identifier": Socket("ping", "ping", port=OTHER),
    "UDP-Lite, of a UDP datagram": Socket("UDP-Lite", "UDP"), "UDP, of a UDP-Lite datagram": Socket("UDP", "UDP-Lite"),
    "raw, another protocol": Socket("raw", "raw", protocol=EXPERIMENT + 1),
    "IPPROTO_RAW, of a UDP datagram": Socket("raw", "UDP", protocol=socket.IPPROTO_RAW),
    "IPPROTO_RAW, of its own number": Socket("raw", "255", protocol=socket.IPPROTO_RAW),
}
CARRIED = {"UDP": socket.IPPROTO_UDP, "UDP-Lite": UDPLITE, "raw": EXPERIMENT, "255": socket.IPPROTO_RAW}


def expected(family, which, message):
    """RFC 1122, 4.1.3.3: those who ask for errors are told of all. Others are told of the hard ones if they are connected."""
    found = meaning(family, *message)
    if message == TOO_BIG[family]:
        if which.recverr:
            return Must("EMSGSIZE, queued", "ip(7), IP_RECVERR")
        return Measured("ip(7) has EMSGSIZE for IP_RECVERR and for a later send(); it says neither that others are told nor that they are not")
    if message in UNSAID[family]:
        return Measured(UNSAID[family][message])
    if which.kind == "ping" and message[0] in (4, 5) and family == V4:
        return Measured("RFC 6633 and RFC 1122, 3.2.2.2 take this for no error; ping_err() has an errno for it")
    if message in NO_ERRORS[family] or found is None:
        return Must("nothing", "RFC 1122, 3.2.2; RFC 4443, 2.1; RFC 6633, 5")
    if which.recverr:
        return f"{found.errno}, queued"
    return found.errno if found.hard and which.connected else "nothing"


def of_another(family, which, message):
    if which.kind == "ping" and which.elsewhere:
        return Measured("RFC 792 matches by the identifier alone")
    return Must("nothing", "RFC 1122, 3.2.2: an error is for the process that sent the packet")


def cells(family):
    talkative = {"UDP, connected, IP_RECVERR", "raw, not connected, IP_RECVERR", "ping, connected, IP_RECVERR"}
    found = {}
    for rows, rule in ((SENDERS, expected), (OTHERS, of_another)):
        for row, which in rows.items():
            messages = CODES[family] + (NO_ERRORS[family] if row in talkative else ())
            found[row] = {f"{kind}/{code}": rule(family, which, (kind, code)) for kind, code in messages}
            found[row]["{}/{}".format(*TOO_BIG[family]) + PATH] = Must(str(MTU), "RFC 1191, 3; RFC 8201, 4") if rows is SENDERS else \
                Measured("RFC 8201, 4 wants every such message heeded, RFC 5927, 7 only those about packets that were sent")
    return found


SOURCE = "RFC 1122, 4.1.3.3; ip(7); errno and hardness by icmp_err_convert[], tab_unreach[]"
IPV4 = Table("errnos.icmp_datagrams", "socket", "type/code", SOURCE, cells(V4))
IPV6 = Table("errnos.icmpv6_datagrams", "socket", "type/code", SOURCE, cells(V6))


def opened(net, family, which, there):
    host = net[which.host]
    if which.kind == "ping":
        sock = host.socket(family, socket.SOCK_DGRAM, PING[family])
    elif which.kind == "raw":
        sock = host.socket(family, socket.SOCK_RAW, which.protocol)
    else:
        sock = host.socket(family, socket.SOCK_DGRAM, CARRIED[which.kind])
    if which.hdrincl:
        sock.setsockopt(*((socket.IPPROTO_IP, IP_HDRINCL) if family == V4 else (socket.IPPROTO_IPV6, 36)), 1)
    errqueue.receive_errors(sock, which.recverr)
    sock.bind((SECOND[family] if which.second_address else net["client"].address(family), 0 if which.kind == "raw" else which.port))
    if which.connected:
        sock.connect((ELSEWHERE[family] if which.elsewhere else there, 0 if which.kind == "raw" else REMOTE))
    if which.closed:
        sock.close()
    return sock


def quote(family, kind, here, there):
    if kind == "ping":
        return icmp.header_quote(here, there, PING[family], struct.pack("!BBHHH", ECHO[family], 0, 0, PORT, 1))
    return icmp.udp_quote(here, PORT, there, REMOTE, CARRIED[kind])


def told(sock, offender, message, there, port):
    """What the socket says of the error: SO_ERROR, and ", queued" if its error queue has it with all details."""
    if sock.fileno() < 0:
        return "nothing"
    poll = select.poll()
    poll.register(sock, 0)
    woken = bool(poll.poll(0))
    number, queued = so_error(sock), errqueue.pending(sock)
    parts = [number or "nothing"]
    if queued is not None:
        details = (errno_name(queued.errno), (queued.kind, queued.code), queued.offender, queued.destination)
        parts.append("queued" if details == (number, message, offender, (there, port)) else f"queued {details}")
    if woken != bool(number or queued):
        parts.append(f"EPOLLERR {woken}")
    return ", ".join(parts)


def check(net, family, which, table):
    client, server, router = net.nodes("client", "server", "router")
    here, sender = client.address(family), icmp.Sender(router, client, family)
    for host in (client, server):
        host.pin({"net.ipv4.ping_group_range": "0 2147483647"})
    if which.second_address:
        client.add_address(SECOND[family])
    if which.host == "server":
        server.add_address(here)
    port = REMOTE if which.kind in ("UDP", "UDP-Lite") else 0
    for number, column in enumerate(table):
        kind, code = map(int, column.partition(",")[0].split("/"))
        there = BEYOND[family].format(number + 1)
        with opened(net, family, which, there) as sock:
            sender.send(kind, code, quote(family, which.quoted, here, there), rest=MTU)
            seen = told(sock, router.address(family, "client"), (kind, code), there, port)
        table.saw(str(pmtu.learned(client, there)) if column.endswith(PATH) else seen)


@pytest.mark.table(IPV4)
@pytest.mark.parametrize("row", IPV4.rows)
def test_icmp_error_reaches_the_datagram_sockets_that_it_is_for(net, row, table):
    """Those that sent the quoted packet, and want it. The path MTU is learned from fragmentation needed, whoever is told."""
    check(net, V4, {**SENDERS, **OTHERS}[row], table)


@pytest.mark.table(IPV6)
@pytest.mark.parametrize("row", IPV6.rows)
def test_icmpv6_error_reaches_the_datagram_sockets_that_it_is_for(net, row, table):
    """As for IPv4, with IPV6_RECVERR; errors of unknown types are passed on (RFC 4443, 2.4 (a))."""
    check(net, V6, {**SENDERS, **OTHERS}[row], table)
