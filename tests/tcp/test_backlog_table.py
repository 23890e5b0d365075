"""How many connections a listener holds until accept(): its backlog x what else limits them. Source: listen(2); ip-sysctl.rst,
tcp_syncookies; Documentation/admin-guide/sysctl/net.rst, somaxconn; include/net/sock.h, sk_acceptq_is_full()."""

import pytest

from fixtures.table import Table
from fixtures.topologies import LAN
from netns import listen
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(LAN)

MORE = 3                                    # attempts beyond those that there is room for
# Backlogs in their order: a second listen(2) of a listener changes it.
BACKLOGS = {**{str(number): (number,) for number in (0, 1, 2, 5, 20)}, "largest": (2**31 - 1,), "5, then 0": (5, 0), "0, then 5": (0, 5)}
COOKIES = {"never": 0, "when full": 1, "always": 2}
SOMAXCONN = (1, 4, 4096)
MOST = 25


def expected(backlogs, most):
    """sk_acceptq_is_full() tells why: so many, and one more."""
    backlog = min(backlogs[-1], most)
    return f"{min(backlog + 1, MOST)} of {min(backlog + 1 + MORE, MOST)}"


TABLE = Table("tcp.backlog", "backlog", "somaxconn, SYN cookies", "listen(2); net.rst, somaxconn; sock.h, sk_acceptq_is_full()", {
    row: {f"somaxconn {most}, cookies {cookies}": expected(backlogs, most) for most in SOMAXCONN for cookies in COOKIES}
    for row, backlogs in BACKLOGS.items()})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_listener_holds_one_connection_more_than_its_backlog(net, family, row, table):
    """As many as the smaller of backlog and somaxconn says; the attempts come one after the other."""
    client, server = net.nodes("client", "server")
    server.pin({"net.ipv4.tcp_abort_on_overflow": 0, "net.ipv4.tcp_max_syn_backlog": 256})
    for column in table:
        most, cookies = (word.split()[1] if "somaxconn" in word else word.partition(" ")[2] for word in column.split(", "))
        server.pin({"net.core.somaxconn": most, "net.ipv4.tcp_syncookies": COOKIES[cookies]})
        first, *later = BACKLOGS[row]
        listener = listen(server, family, first)
        for backlog in later:
            listener.listen(backlog)
        listener.setblocking(False)
        attempts = int(TABLE.cells[row][column].partition(" of ")[2])
        conns = []
        for _attempt in range(attempts):
            conn = client.socket(family)
            conn.setblocking(False)
            conn.connect_ex(listener.getsockname()[:2])
            fence(client, server, server.address(family))
            fence(server, client, client.address(family))
            fence(client, server, server.address(family))
            conns.append(conn)
        table.saw(f"{accepted(server, listener)} of {attempts}")
        for conn in (*conns, listener):
            conn.close()


def accepted(server, listener):
    """How many connections wait."""
    count = 0
    while True:
        try:
            server.adopt(listener.accept()[0]).close()
        except BlockingIOError:
            return count
        count += 1
