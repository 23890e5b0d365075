"""News of every size about a path MTU, to each kind of route that can hold it.

Each cell has a destination, a route and a socket of its own.
"""

import socket

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import ROUTED

pytestmark = pytest.mark.topology(ROUTED)

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = {"IPv4": V4, "IPv6": V6}
LINK, OWN = 1500, 1450
LEAST = {V4: 552, V6: 1280}                 # min_pmtu (ip-sysctl.rst); RFC 8200, 5
EXPIRES = 600                               # seconds, mtu_expires (ip-sysctl.rst)
HOLDERS = ("route by a gateway", "route to a link", "route with an MTU", "route with a locked MTU", "default route", "multipath route",
           "nexthop object", "nexthop group", "route of a rule", "route of a VRF")
NEWS = {
    V4: ((1300,), (1300, 1300), (1300, 1299), (1300, 1200), (1300, 1301), (1300, 1400), (1300, 65535), (1300, 1200, 1250), (1449,),
         (1450,), (1499,), (1500,), (1501,), (65535,), (576,), (552,), (551,), (68,), (0,), (1300, 551), (551, 1300),
         (551, 552), (552, 551)),
    V6: ((1300,), (1300, 1300), (1300, 1299), (1300, 1290), (1300, 1301), (1300, 1400), (1300, 65535), (1300, 1290, 1295), (1449,),
         (1450,), (1499,), (1500,), (1501,), (65535,), (2**32 - 1,), (1280,), (1279,), (68,), (0,), (1300, 1279),
         (1280, 1281), (1280, 1279)),
}


def believed(family, holder, news):
    """RFC 1191, 3 and RFC 8201, 4: news lower the path MTU and never raise it. IPv4: below min_pmtu it is min_pmtu, and DF is not set
    any more (ip-sysctl.rst; RFC 1191, 5); a locked MTU takes no news (ip-route(8)). IPv6: news below 1280 are discarded, and discovery
    is no option that a lock could switch off (RFC 8201, 4)."""
    mtu = OWN if "MTU" in holder else LINK
    if news == (mtu,) and "lock" not in holder:
        return OneOf((f"{mtu}", f"{mtu} for {EXPIRES} s"), "it is the same path MTU; whether its age is noted no document says")
    locked, learned = "lock" in holder, False
    for each in news:
        if family == V4 and not locked and each < min(mtu, LEAST[V4]):
            mtu, locked, learned = LEAST[V4], True, True
        elif LEAST[family] <= each < mtu and (family == V6 or not locked):
            mtu, learned = each, True
    return f"{mtu}{' locked' * locked}{f' for {EXPIRES} s' * learned}"


SOURCE = "RFC 1191, 3 and 5; RFC 8201, 4; ip-sysctl.rst, min_pmtu"
NEWS_TABLES = {name: Table(f"pmtu.news over {name}", "what holds the path MTU", "news", SOURCE, {
    holder: {", then ".join(map(str, news)): believed(family, holder, news) for news in NEWS[family]} for holder in HOLDERS})
    for name, family in FAMILIES.items()}


def check_news(destinations, family, row, table):
    cells = destinations(family, row, len(NEWS[family]))
    for _column, news in zip(table, NEWS[family]):
        cells.next()
        for mtu in news:
            cells.tell(mtu)
        table.saw(cells.saw())


@pytest.mark.table(NEWS_TABLES["IPv4"])
@pytest.mark.parametrize("row", NEWS_TABLES["IPv4"].rows)
def test_ipv4_path_mtu_follows_the_news(destinations, row, table):
    """The MTU of the route and of the socket's next packet, whether it is locked, and how long it is kept."""
    check_news(destinations, V4, row, table)


@pytest.mark.table(NEWS_TABLES["IPv6"])
@pytest.mark.parametrize("row", NEWS_TABLES["IPv6"].rows)
def test_ipv6_path_mtu_follows_the_news(destinations, row, table):
    """As over IPv4."""
    check_news(destinations, V6, row, table)
