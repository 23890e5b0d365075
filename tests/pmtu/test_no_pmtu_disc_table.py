"""Which fragmentation needed errors a host heeds in each mode of ip_no_pmtu_disc, about packets of every protocol: ip-sysctl.rst."""

import socket

import pytest

from fixtures.table import Measured, Table
from fixtures.topologies import ROUTED
from netns.packets import icmp, pmtu

pytestmark = pytest.mark.topology(ROUTED)

V4 = socket.AF_INET
LINK, MTU, MINIMUM = 1500, 1300, 552
DISC = "net.ipv4.ip_no_pmtu_disc"
# Mode 3 heeds protocols that check the packet; they have to be registered. ICMP and UDP do not check it.
VERIFIED, MODULES, REGISTERED = (6,), (132, 33), (1, 17)
# IGMP, IPIP, IPv6, GRE, ESP, AH, IPcomp, L2TP and UDP-Lite may be registered or not: a module, a configuration.
OPTIONAL = (2, 4, 41, 47, 50, 51, 108, 115, 136)
UNKNOWN = [number for number in range(1, 255) if number not in (*VERIFIED, *MODULES, *REGISTERED, *OPTIONAL)]
MODES = {0: "all", 1: "min_pmtu", 2: "none", 3: "verified"}
SOURCE = "ip-sysctl.rst, ip_no_pmtu_disc"


def expected(mode, number):
    """What a socket of this protocol goes by after an error about its packet."""
    if mode == 3 and number in MODULES:
        return Measured("SCTP and DCCP are verified only if the kernel has them")
    return str({0: MTU, 1: MINIMUM, 2: LINK, 3: MTU if number in VERIFIED else LINK}[mode])


def row_of(mode, numbers):
    return {f"protocol {number}": expected(mode, number) for number in numbers}


KNOWN = Table("pmtu.no_pmtu_disc", "mode", "quoted", SOURCE,
              {f"{mode}, {MODES[mode]}": row_of(mode, (*VERIFIED, *REGISTERED)) for mode in MODES})
# Each eighth of the unknown numbers: in rows of their own, since an affected kernel ends at the first that is not registered.
OTHERS = Table("pmtu.no_pmtu_disc_unregistered", "mode", "quoted", SOURCE, {
    f"{mode}, {MODES[mode]}": row_of(mode, (*MODULES, *OPTIONAL, *UNKNOWN[::8])) for mode in MODES})


def check(net, row, table):
    """A raw socket of each protocol has sent what the error quotes."""
    client, router = net.nodes("client", "router")
    client.pin({DISC: int(row[0])})
    sender, here = icmp.Sender(router, client, V4), client.address(V4)
    for number, column in enumerate(table):
        protocol, there = int(column.split()[1]), f"203.0.113.{number + 1}"
        with client.socket(V4, socket.SOCK_RAW, protocol) as sock:
            sock.bind((here, 0))
            sock.connect((there, 0))
            sender.send(3, 4, icmp.udp_quote(here, 9, there, 9, protocol), rest=MTU)
        table.saw(str(pmtu.learned(client, there)))


@pytest.mark.table(KNOWN)
@pytest.mark.parametrize("row", KNOWN.rows)
def test_mode_decides_about_errors_for_each_protocol(net, row, table):
    """0: heeded. 1: as min_pmtu. 2: dropped. 3: only of protocols that verify what the error quotes."""
    check(net, row, table)


@pytest.mark.table(OTHERS)
@pytest.mark.virtual_clock("crashes an affected kernel: needs its own machine")
@pytest.mark.parametrize("row", OTHERS.rows)
def test_mode_decides_about_errors_for_a_protocol_that_may_be_unregistered(net, row, table):
    """Likewise, and kernels without "icmp: fix NULL pointer dereference in icmp_tag_validation()" crash in mode 3."""
    check(net, row, table)
