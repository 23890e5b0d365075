"""Which connections a filtered dump lists: each field of either tuple, alone and together, with a value that some have, or none.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, CTA_FILTER.
"""

import itertools
import socket

import pytest

from fixtures.table import Table
from fixtures.topologies import LAN
from netns.attempt import errno_of
from netns.netlink import conntrack
from netns.netlink.conntrack_filter import SIDES, filtered

pytestmark = pytest.mark.topology(LAN)

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = {"IPv4": V4, "IPv6": V6}
# Of the client and of the server; the last one nobody has.
CLIENT = {V4: ("192.0.2.1", "192.0.2.11", "192.0.2.77"), V6: ("2001:db8:1::1", "2001:db8:1::11", "2001:db8:1::77")}
SERVER = {V4: ("192.0.2.2", "192.0.2.12", "192.0.2.78"), V6: ("2001:db8:1::2", "2001:db8:1::12", "2001:db8:1::78")}
# By source port: which address of each end, and the destination port.
FLOWS = {1001: (0, 0, 2001), 1002: (1, 0, 2002), 1003: (0, 1, 2003), 1004: (1, 1, 2001)}
FIELDS = ("source", "destination", "protocol", "source port", "destination port")
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP


def tuple_of(family, port, side):
    """A flow's fields."""
    client, server, to = FLOWS[port]
    ends = [(CLIENT[family][client], port), (SERVER[family][server], to)]
    (source, sport), (destination, dport) = ends if side == "original" else ends[::-1]
    return dict(zip(FIELDS, (source, destination, UDP, sport, dport)))


def absent(family, side):
    """Values that no flow has."""
    ends = [CLIENT[family][2], SERVER[family][2]]
    return dict(zip(FIELDS, (*(ends if side == "original" else ends[::-1]), TCP, 1999, 2999)))


COLUMNS = [*itertools.chain.from_iterable(itertools.combinations(FIELDS, count) for count in (1, 2, 5))]


def asked(family, side, names, whose):
    values = absent(family, side) if whose == "nobody" else tuple_of(family, whose, side)
    return {name: values[name] for name in names}


def expected(family, side, names, whose):
    wanted = asked(family, side, names, whose)
    found = [port for port in FLOWS if wanted.items() <= tuple_of(family, port, side).items()]
    return listed(found)


def listed(ports):
    return " ".join(map(str, ports)) or "none"


WHOSE = {f"of flow {port}": port for port in (1001, 1004)} | {"of nobody": "nobody"}
TABLE = Table("conntrack.dump", "tuple", "fields that must be equal", "nfnetlink_conntrack.h, CTA_FILTER: the fields whose flags are set", {
    f"{name}, {side}": {f"{', '.join(names)} {words}": expected(family, side, names, whose)
                        for names in COLUMNS for words, whose in WHOSE.items()}
    for name, family in FAMILIES.items() for side in SIDES})
CELLS = {f"{', '.join(names)} {words}": (names, whose) for names in COLUMNS for words, whose in WHOSE.items()}


def send(client, server, family, port):
    """The flow's datagram, which arrives."""
    fields = tuple_of(family, port, "original")
    with server.socket(family, socket.SOCK_DGRAM) as inbox, client.socket(family, socket.SOCK_DGRAM) as outbox:
        inbox.bind((fields["destination"], fields["destination port"]))
        inbox.settimeout(10)
        outbox.bind((fields["source"], port))
        outbox.sendto(b"x", inbox.getsockname()[:2])
        inbox.recv(1)


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_dump_lists_the_connections_that_have_all_that_is_asked_for(net, row, table):
    """By their source ports; no other connection, and none twice."""
    client, server = net.nodes("client", "server")
    name, side = row.split(", ")
    family = FAMILIES[name]
    prefix = 24 if family == V4 else 64
    client.add_address(f"{CLIENT[family][1]}/{prefix}", "server")
    server.add_address(f"{SERVER[family][1]}/{prefix}", "client")
    with conntrack.tracking(server):
        for port in FLOWS:
            send(client, server, family, port)
        for column in table:
            found = errno_of(filtered, server, family, side, asked(family, side, *CELLS[column]))
            table.saw(found if isinstance(found, str) else listed([port for port in found if port in FLOWS]))
