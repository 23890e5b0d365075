"""Upper connection thresholds of a real server: each one before and after an edit x the connections that there are. Source: ipvsadm(8),
--u-threshold and --l-threshold."""

import socket
import struct

import pytest

from fixtures.balanced import LimitedServer
from fixtures.table import LeftOut, Measured, Table
from fixtures.topologies import ROUTED

pytestmark = pytest.mark.topology(ROUTED)

FIRST_PORT, MORE, MOST = 8000, 2, 4
UPPERS = range(5)                           # 0 is no limit


def expected(before, after, held):
    """ipvsadm(8): no more connections than this are sent to it."""
    if before and held > before:
        return LeftOut("the server has refused the last of these")
    if after and before and held == before and 3 * after <= 4 * held < 4 * after:
        return Measured("ipvsadm(8): full, it takes new ones when it has less than the lower threshold, here three quarters; "
                        "it does not say what of the upper one that is raised")
    return f"{MORE if not after else max(0, min(MORE, after - held))} more"


TABLE = Table("ipvs.thresholds", "upper threshold before and after", "connections", "ipvsadm(8), --u-threshold", {
    f"{before}, then {after}": {f"{held} connections": expected(before, after, held) for held in range(MOST + 1)}
    for before in UPPERS for after in UPPERS})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_real_server_gets_no_more_connections_than_its_threshold(net, family, row, table):
    """The one last set, whatever the one before; existing connections count."""
    before, after = map(int, row.split(", then "))
    for number, column in enumerate(table):
        held = int(column.split()[0])
        service = LimitedServer(net, family, FIRST_PORT + number)
        service.threshold("-a", before)
        conns = [service.connect() for _ in range(held)]
        service.threshold("-e", after)
        more = [service.connect() for _ in range(MORE)]
        refused = conns.count(None)
        table.saw(f"{refused} of the first refused" if refused else f"{MORE - more.count(None)} more")
        for conn in (*conns, *more):
            if conn is not None:
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
                conn.close()
