"""Which path MTU a host believes: every kind of datagram socket in each mode of IP_MTU_DISCOVER, and MTUs of every size.

Source: RFC 1191, 3; RFC 8201, 4; ip(7), IP_MTU_DISCOVER and IP_RECVERR; include/uapi/linux/in.h; ip-sysctl.rst, min_pmtu.
"""

import pytest

from fixtures.icmp_errors import TOO_BIG, V4, V6
from fixtures.icmp_sockets import BEYOND, OTHERS, Socket, opened, prepare, quote, told
from fixtures.table import Measured, Must, OneOf, Table
from fixtures.topologies import ROUTED
from netns.packets import icmp, pmtu

pytestmark = pytest.mark.topology(ROUTED)

LINK, MINIMUM = 1500, {V4: 552, V6: 1280}
MTUS = {V4: (0, 68, 551, 552, 576, 1280, 1499, 1500, 1501, 65535), V6: (0, 68, 1279, 1280, 1300, 1499, 1500, 1501, 65535)}
MODES = {"DONT": 0, "WANT": 1, "DO": 2, "PROBE": 3, "INTERFACE": 4, "OMIT": 5}
SENDERS = {
    f"{kind}, {'connected' if connected else 'not connected'}{', IP_RECVERR' if recverr else ''}, {name}":
    Socket(kind, kind, connected=connected, recverr=recverr, discover=mode)
    for kind in ("UDP", "raw", "ping") for connected in (True, False) for recverr in (True, False) for name, mode in MODES.items()
    if recverr or name == "WANT"
}
# Newer kernels have no UDP-Lite ("ipv4: Retire UDP-Lite.").
ALL = {**SENDERS, **{row: which for row, which in OTHERS.items() if which.quoted != "UDP-Lite"}}
IGNORES = ("INTERFACE", "OMIT")


def reduced(family, mtu):
    """The estimate after a message with this MTU; it never grows."""
    if family == V4:
        return min(LINK, max(mtu, MINIMUM[V4]))
    return LINK if mtu < MINIMUM[V6] else min(LINK, mtu)


def size(family, row, mtu):
    """What the path MTU must be."""
    which, believed = ALL[row], str(reduced(family, mtu))
    if believed == str(LINK):
        return Must(believed, "RFC 8201, 4: never below 1280, and a message never raises the estimate")
    if row in SENDERS and row.endswith(IGNORES):
        return OneOf((str(LINK), believed), "in.h: this socket ignores the message; RFC 8201, 4: the host may heed it without a socket")
    if which.quoted == "255":
        return Must(str(LINK), "raw(7): IPPROTO_RAW is no protocol of a packet, and its sockets only send")
    if row in SENDERS or which.quoted == "UDP":
        return Must(believed, "RFC 1191, 3; RFC 8201, 4; ip-sysctl.rst, min_pmtu. A closed port must not differ from an open one")
    return Measured("RFC 8201, 4 wants every such message heeded, RFC 5927, 7 only those about packets that were sent")


def cells(family):
    return {row: {f"MTU {mtu}": size(family, row, mtu) for mtu in MTUS[family]} for row in ALL}


def mentioned(family, row, mtu):
    """What the socket must be told."""
    which = ALL[row]
    queued = f"EMSGSIZE, queued MTU {mtu}"
    if not which.recverr:
        return Measured("ip(7) has EMSGSIZE for IP_RECVERR and for a later send(); it does not say that others are told")
    if row.endswith(("DONT", *IGNORES)):
        return OneOf(("nothing", queued), "ip(7): IP_RECVERR queues every error; DONT, INTERFACE and OMIT take no part in discovery")
    return Must(queued, "ip(7), IP_RECVERR: ee_info is the MTU")


def told_cells(family):
    return {row: {f"MTU {mtu}": mentioned(family, row, mtu) for mtu in MTUS[family]} for row in SENDERS}


NAMES = {V4: "icmp", V6: "icmpv6"}
SIZES = {family: Table(f"pmtu.{name}_believed", "socket", "MTU of the message", "RFC 1191, 3; RFC 8201, 4", cells(family))
         for family, name in NAMES.items()}
TOLD = {family: Table(f"pmtu.{name}_told", "socket", "MTU of the message", "ip(7), IP_RECVERR", told_cells(family))
        for family, name in NAMES.items()}


def check(net, family, row, table, observe):
    client, router = net.nodes("client", "router")
    which, here, sender = ALL[row], client.address(family), icmp.Sender(router, client, family)
    prepare(net, family, which)
    for number, column in enumerate(table):
        there = BEYOND[family].format(number + 1)
        with opened(net, family, which, there) as sock:
            sender.send(*TOO_BIG[family], quote(family, which, here, there), rest=int(column.split()[1]))
            table.saw(observe(sock, there))


def believed(net, family, row, table):
    check(net, family, row, table, lambda _sock, there: str(pmtu.learned(net["client"], there)))


def told_of(net, family, row, table):
    offender = net["router"].address(family, "client")
    check(net, family, row, table, lambda sock, there: told(sock, ALL[row], offender, TOO_BIG[family], there))


@pytest.mark.table(SIZES[V4])
@pytest.mark.parametrize("row", SIZES[V4].rows)
def test_host_believes_fragmentation_needed_in_every_mode(net, row, table):
    """For new sockets to this destination, whoever sent the packet; not below min_pmtu, and never more than before."""
    believed(net, V4, row, table)


@pytest.mark.table(SIZES[V6])
@pytest.mark.parametrize("row", SIZES[V6].rows)
def test_host_believes_packet_too_big_in_every_mode(net, row, table):
    """Likewise, and not below 1280 bytes."""
    believed(net, V6, row, table)


@pytest.mark.table(TOLD[V4])
@pytest.mark.parametrize("row", TOLD[V4].rows)
def test_socket_is_told_of_fragmentation_needed_in_every_mode(net, row, table):
    """With IP_RECVERR, with the MTU of the message, whether or not the host believes it."""
    told_of(net, V4, row, table)


@pytest.mark.table(TOLD[V6])
@pytest.mark.parametrize("row", TOLD[V6].rows)
def test_socket_is_told_of_packet_too_big_in_every_mode(net, row, table):
    """Likewise."""
    told_of(net, V6, row, table)
