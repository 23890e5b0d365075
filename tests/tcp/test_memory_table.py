"""Memory limits of sockets: every value that is accepted lets data through. Source: ip-sysctl.rst, tcp_rmem and tcp_wmem; socket(7),
SO_RCVBUF and SO_SNDBUF."""

import socket
import struct

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import LAN
from netns import ExpectationFailed, deliver, listen
from netns.attempt import errno_name

pytestmark = [pytest.mark.topology(LAN), pytest.mark.virtual_clock("waits for data that does not come")]

AMOUNT, TIMES, WITHIN = 2000, 5, 30
NUMBERS = (-1, 0, 1, 1024, 2048, 4095, 4096, 8192, 65536, 2**31 - 1)
# Of least, initial and most.
TRIPLES = {**{f"{number} {number} {number}": (number,) * 3 for number in NUMBERS},
           "1 87380 6291456": (1, 87380, 6291456), "4096 1 6291456": (4096, 1, 6291456), "4096 87380 1": (4096, 87380, 1),
           "4096 4096 6291456": (4096, 4096, 6291456), "8192 4096 4096": (8192, 4096, 4096)}
SYSCTLS = {"tcp_rmem": "server", "tcp_wmem": "client"}
OPTIONS = {"SO_RCVBUF": socket.SO_RCVBUF, "SO_SNDBUF": socket.SO_SNDBUF}
FLOWS = OneOf(("data arrives", "EINVAL"), "a value that is of no use may be refused: no document has the smallest")
TABLE = Table("tcp.memory", "limit", "value", "RFC 9293, 3.8.6: what a receiver offers it can take", {
    **{row: dict.fromkeys(TRIPLES, FLOWS) for row in SYSCTLS},
    **{row: {str(number): "data arrives" for number in NUMBERS} for row in OPTIONS},     # socket(7): less than the least is made that
})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_connection_carries_data_with_any_limit_that_is_accepted(net, family, row, table):
    """Some segments, one after the other; the value is set before the connection is made."""
    client, server = net.nodes("client", "server")
    for column in table:
        try:
            if row in SYSCTLS:
                net[SYSCTLS[row]].pin({f"net.ipv4.{row}": column})
        except OSError as error:
            table.saw(errno_name(error.errno))
            continue
        with listen(server, family) as listener, client.socket(family) as conn:
            if row in OPTIONS:
                (listener if row == "SO_RCVBUF" else conn).setsockopt(socket.SOL_SOCKET, OPTIONS[row], int(column))
            table.saw(carried(server, listener, conn))


def carried(server, listener, conn):
    """Whether the data arrives."""
    conn.settimeout(WITHIN)
    # What is stalled does not outlive the cell.
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    listener.settimeout(WITHIN)
    try:
        conn.connect(listener.getsockname()[:2])
        with server.adopt(listener.accept()[0]) as peer:
            for _time in range(TIMES):
                deliver(conn, peer, AMOUNT, within=WITHIN)
    except (ExpectationFailed, TimeoutError):
        return f"stalls for {WITHIN} s"
    return "data arrives"
