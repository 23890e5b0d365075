"""What a write to net.ipv*.route.flush forgets: the value x the one before x what has been learned. Source:
ipv6_sysctl_rtcache_flush(): what has this age in jiffies; sysctl(8): a value that is written is the one that counts."""

import itertools
import socket

import pytest

from fixtures.table import Measured, Table
from fixtures.topologies import ROUTED
from netns import deliver
from netns.packets import icmp, pmtu

pytestmark = [pytest.mark.topology(ROUTED), pytest.mark.virtual_clock("lets a second pass for each cell")]

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = {"IPv4": V4, "IPv6": V6}
AGE, LEARNED = 1, 1300                      # seconds; bytes
VALUES = (0, 1, 100000)
BETTER = {V4: "192.0.2.77", V6: "fe80::77"}
MAC = "00:00:5e:00:53:77"
PREFIX = {V4: "203.0.113.0/24", V6: "2001:db8:ff::/64"}
FAR = {V4: "203.0.113.{}", V6: "2001:db8:ff::{}"}


def expected(row, now):
    if row != "IPv6, redirect" or now == 0:
        return Measured("no document says what a write forgets of this")
    return "forgotten" if now < 250 * AGE else "kept"


TABLE = Table("pmtu.flush", "what has been learned", "value written before, and after a second", "ipv6_sysctl_rtcache_flush()", {
    f"{name}, {what}": {f"{before}, then {now}": expected(f"{name}, {what}", now) for before, now in itertools.product(VALUES, repeat=2)}
    for name in FAMILIES for what in ("redirect", "path MTU")})


def segment(client, server, listener, to):
    """The quote of a segment of a connection to this address, which lasts."""
    conn = client.socket(listener.family)
    with client.capture("tcp") as packets:
        conn.connect((to, listener.getsockname()[1]))
        deliver(conn, server.adopt(listener.accept()[0]), 1)
    return icmp.quote_next(packets.sent()[-1])


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_flush_goes_by_the_value_that_is_written(net, clock, row, table):
    """Not by the one before."""
    client, router, server = net.nodes("client", "router", "server")
    name, what = row.split(", ")
    family = FAMILIES[name]
    flush = f"net.{name.lower()}.route.flush"
    at_router = router.interfaces["client"]
    version = "ipv4" if family == V4 else "ipv6"
    client.pin({f"net.{version}.conf.{interface}.accept_redirects": 1 for interface in ("all", "to-router")})
    lines = [f"neighbour replace {BETTER[family]} lladdr {MAC} dev to-router router"]
    if family == V6:
        lines.append(f"route replace default via {icmp.link_local(at_router)} dev to-router")
    client.run(["ip", "-6" if family == V6 else "-4", "-batch", "-"], stdin="\n".join(lines) + "\n")
    udp = client.socket(family, socket.SOCK_DGRAM)
    udp.bind((client.address(family), 0))
    listener = server.socket(family)
    listener.bind(("", 0))
    listener.listen()
    router.run(["ip", "route", "add", PREFIX[family], "via", server.address(family)])
    for number, column in enumerate(table, 1):
        before, now = column.split(", then ")
        to = FAR[family].format(number)
        client.pin({flush: before})
        if what == "redirect":
            server.add_address(to)
            icmp.send_redirect(router, client, BETTER[family], segment(client, server, listener, to))
        else:
            icmp.send_too_big(router, client, LEARNED, icmp.udp_quote(client.address(family), udp.getsockname()[1], to, 9))
        learned = BETTER[family] if what == "redirect" else LEARNED

        def known(to=to):
            path = pmtu.path(client, to)
            return path.via if what == "redirect" else path.mtu

        if known() != learned:
            table.saw("not learned")
            continue
        clock.sleep(AGE)
        client.pin({flush: now})
        table.saw("kept" if known() == learned else "forgotten")
