"""Who is told of which ICMP error: sockets for datagrams, each with every type and code (RFC 1122, 4.1.3.3; ip(7), udp(7), raw(7))."""

import pytest

from fixtures.icmp_errors import CODES, NO_ERRORS, TOO_BIG, UNSAID, V4, V6, meaning
from fixtures.icmp_sockets import BEYOND, OTHERS, SENDERS, opened, prepare, quote, told
from fixtures.table import Measured, Must, Table
from fixtures.topologies import ROUTED
from netns.packets import icmp

pytestmark = pytest.mark.topology(ROUTED)

MTU = 1300


def expected(family, which, message):
    """RFC 1122, 4.1.3.3: those who ask for errors are told of all. Others are told of the hard ones if they are connected."""
    found = meaning(family, *message)
    if message == TOO_BIG[family]:
        if which.recverr:
            return Must(f"EMSGSIZE, queued MTU {MTU}", "ip(7), IP_RECVERR")
        return Measured("ip(7) has EMSGSIZE for IP_RECVERR and for a later send(); it does not say that others are told")
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
    return found


SOURCE = "RFC 1122, 4.1.3.3; ip(7); errno and hardness by icmp_err_convert[], tab_unreach[]"
IPV4 = Table("errnos.icmp_datagrams", "socket", "type/code", SOURCE, cells(V4))
IPV6 = Table("errnos.icmpv6_datagrams", "socket", "type/code", SOURCE, cells(V6))


def check(net, family, which, table):
    client, router = net.nodes("client", "router")
    here, sender = client.address(family), icmp.Sender(router, client, family)
    prepare(net, family, which)
    for number, column in enumerate(table):
        message, there = tuple(map(int, column.split("/"))), BEYOND[family].format(number + 1)
        with opened(net, family, which, there) as sock:
            sender.send(*message, quote(family, which, here, there), rest=MTU)
            table.saw(told(sock, which, router.address(family, "client"), message, there))


@pytest.mark.table(IPV4)
@pytest.mark.parametrize("row", IPV4.rows)
def test_icmp_error_reaches_the_datagram_sockets_that_it_is_for(net, row, table):
    """Those that sent the quoted packet, and want to know of it."""
    check(net, V4, {**SENDERS, **OTHERS}[row], table)


@pytest.mark.table(IPV6)
@pytest.mark.parametrize("row", IPV6.rows)
def test_icmpv6_error_reaches_the_datagram_sockets_that_it_is_for(net, row, table):
    """As for IPv4, with IPV6_RECVERR; errors of unknown types are passed on (RFC 4443, 2.4 (a))."""
    check(net, V6, {**SENDERS, **OTHERS}[row], table)
