"""Which of two sockets excludes the other from a port: the first x the second, by address, alone and beside many others."""

import itertools
from contextlib import ExitStack

import pytest

from fixtures.binding import Ask, bound, crowd, made
from fixtures.table import Table
from fixtures.topologies import LAN
from netns.attempt import errno_of

pytestmark = pytest.mark.topology(LAN)

PORT = 4000
# The client's own address, and one that the test adds.
ANOTHER = ("198.51.100.9", "2001:db8:2::9")
ADDRESSES = ("0.0.0.0", "192.0.2.1", "198.51.100.9", "[::]", "V6ONLY [::]", "[2001:db8:1::1]", "[2001:db8:2::9]", "[::ffff:0.0.0.0]",
             "[::ffff:192.0.2.1]")
SOURCE = "socket(7) SO_REUSEADDR and SO_REUSEPORT; ipv6(7) IPV6_V6ONLY: the port space of IPv6 is shared with IPv4"
# Name: protocol, the options of both sockets, whether the first listens before the second binds.
WAYS = {
    "TCP": ("TCP", (), False),
    "TCP REUSEADDR": ("TCP", ("REUSEADDR",), False),
    "TCP REUSEADDR, listening": ("TCP", ("REUSEADDR",), True),
    "TCP REUSEPORT": ("TCP", ("REUSEPORT",), False),
    "TCP REUSEPORT, listening": ("TCP", ("REUSEPORT",), True),
    "UDP": ("UDP", (), False),
    "UDP REUSEADDR": ("UDP", ("REUSEADDR",), False),
    "UDP REUSEPORT": ("UDP", ("REUSEPORT",), False),
}
# Of these there are all pairs beside others.
AMONG = ("0.0.0.0", "192.0.2.1", "[::]", "V6ONLY [::]", "[2001:db8:1::1]", "[::ffff:0.0.0.0]", "[::ffff:192.0.2.1]")
# How many other sockets have the port: UDP looks for conflicts elsewhere beyond ten, TCP since 6.1 where one of them has an address.
CROWDS = {f"{way}, {size} others": (way, size) for size, ways in ((12, WAYS), (2000, ("TCP", "UDP"))) for way in ways}


def expected(way, first, second, crowded=False):
    """What bind() gives; for TCP where both are bound also whether both can listen, since one socket only may listen at an address and
    port (listen(2)), unless they share it by SO_REUSEPORT."""
    protocol, options, listens = WAYS[way]
    one, other = Ask(first, options), Ask(second, options)
    if crowded and not options and "" in {address for _version, address in one.receives()}:
        return "EADDRINUSE for the first"
    overlap = one.overlaps(other)
    if overlap and not one.shares(other, listens):
        return "EADDRINUSE"
    if crowded and not options and "" in {address for _version, address in other.receives()}:
        return "EADDRINUSE"
    if protocol != "TCP":
        return "bound"
    return "bound, EADDRINUSE from listen()" if overlap and not one.shares(other, listens=True) else "bound, both listen"


ALONE = Table("binding.conflict", "first socket", "second socket, and the options of both", SOURCE, {
    first: {f"{way}, {second}": expected(way, first, second) for way in WAYS for second in ADDRESSES} for first in ADDRESSES})
CROWDED = Table("binding.crowd", "other sockets", "first and second socket", SOURCE, {
    row: {f"{first} and {second}": expected(way, first, second, crowded=True) for first, second in itertools.product(AMONG, repeat=2)}
    for row, (way, _size) in CROWDS.items()})


@pytest.fixture
def client(net):
    """With a second address of each family."""
    for address in ANOTHER:
        net["client"].add_address(address)
    return net["client"]


def outcome(client, way, first, second):
    """Bind both and, where TCP lets them, have both listen; the sockets are closed afterwards."""
    protocol, options, listens = WAYS[way]
    with made(client, protocol, Ask(first, options)) as one, made(client, protocol, Ask(second, options)) as other:
        if error := bound(one, Ask(first).literal, PORT):
            return f"{error} for the first"
        if listens:
            one.listen()
        if error := bound(other, Ask(second).literal, PORT):
            return error if other.getsockname()[1] == 0 else f"{error}, but it has a port"
        if protocol != "TCP":
            return "bound"
        errors = [error for error in (errno_of(each.listen) for each in (one, other)) if error]
        return f"bound, {' and '.join(errors)} from listen()" if errors else "bound, both listen"


@pytest.mark.table(ALONE)
@pytest.mark.parametrize("row", ALONE.rows)
def test_second_socket_is_bound_unless_the_first_excludes_it(client, row, table):
    """bind() fails with EADDRINUSE where a packet could be for both sockets, and their options do not let them share."""
    for column in table:
        way, second = column.rsplit(", ", 1)
        table.saw(outcome(client, way, row, second))


@pytest.mark.table(CROWDED)
@pytest.mark.parametrize("row", CROWDED.rows)
def test_other_sockets_of_the_port_do_not_matter_to_two_sockets(client, row, table):
    """Many more have the port, each at an address of its own: two sockets exclude each other as they do alone."""
    way, size = CROWDS[row]
    protocol, options, _listens = WAYS[way]
    with ExitStack() as stack:
        for each in crowd(client, protocol, size, PORT, options):
            stack.enter_context(each)
        for pair in table:
            table.saw(outcome(client, way, *pair.split(" and ")))
