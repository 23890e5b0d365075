"""Datagrams that are sent before their SA exists: net.core.xfrm_larval_drop x how many there are x when the SA comes. Source: RFC 4301,
4.4.2: what matches a policy is protected or discarded; xfrm_create_dummy_bundle(), xfrm_policy_queue_process()."""

import socket

import pytest

from fixtures.table import Table
from fixtures.topologies import LAN
from netns.attempt import errno_of
from netns.netlink.xfrm import KeyManager

pytestmark = [pytest.mark.topology(LAN), pytest.mark.virtual_clock("waits for the timer of the hold queue in each cell")]

FIRST_PORT, ENOUGH = 5000, 4                # the timer's intervals: 0.1 s, 0.2 s, 0.4 s, ...
COUNTS = (1, 2, 3, 20, 100)
SA_COMES = {"at once": 0, "after 1 s": 1, "never": None}
CELLS = {f"{count} datagrams, SA {when}": (count, when) for count in COUNTS for when in SA_COMES}
SOCKETS = ("unconnected", "connected")


def expected(drop, count, when):
    return "none arrives" if drop or when == "never" else f"{count} arrive, in order, by ESP"


TABLE = Table("xfrm.held", "xfrm_larval_drop, socket", "datagrams before the SA, and when it comes", "RFC 4301, 4.4.2", {
    f"xfrm_larval_drop {drop}, {sock}": {column: expected(drop, *cell) for column, cell in CELLS.items()}
    for drop in (0, 1) for sock in SOCKETS})


def outcome(got, count, packets):
    """What the server got, and how it was sent."""
    if not got:
        return "none arrives" if not packets else "sent, but none arrives"
    order = got == [b"%d" % number for number in range(count)]
    ways = {packet.protocol for packet in packets}
    return f"{len(got)} arrive{', in order' if order else ''}, {'by ESP' if ways == {'esp'} else 'by ' + ' and '.join(sorted(ways))}"


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_datagrams_wait_for_their_sa_if_they_may(peers, larval_drop, clock, row, table):
    """All of them, in order; without an SA nothing leaves."""
    larval_drop(int(row.split(",")[0].split()[1]))
    columns = TABLE.columns(row)
    peers.ready(*range(1, len(columns) + 1))
    KeyManager(peers.client)
    for reqid, column in enumerate(table, 1):
        count, when = CELLS[column]
        port = FIRST_PORT + reqid
        peers.add_policy(socket.SOCK_DGRAM, port, reqid)
        inbox = peers.server.socket(peers.family, socket.SOCK_DGRAM)
        inbox.bind((peers.there, port))
        inbox.setblocking(False)
        with peers.udp_client() as sock, peers.client.capture() as packets:
            if row.endswith(" connected"):
                sock.connect((peers.there, port))
            sock.setblocking(False)
            for number in range(count):
                errno_of(sock.sendto, b"%d" % number, (peers.there, port))
            if SA_COMES[when] is not None:
                clock.sleep(SA_COMES[when])
                peers.add_sa(reqid)
            clock.sleep(ENOUGH)
        got = []
        while isinstance(data := errno_of(inbox.recv, 100), bytes):
            got.append(data)
        sent = [packet for packet in packets.sent() if packet.protocol in ("esp", "udp") and packet.destination == peers.there]
        table.saw(outcome(got, count, sent))
