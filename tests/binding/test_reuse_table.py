"""SO_REUSEADDR and SO_REUSEPORT: the options and the state of the socket that has the port x the options of the one that wants it."""

import errno
import os
import socket
from contextlib import ExitStack

import pytest

from fixtures.binding import V4, Ask, bound, made
from fixtures.table import Table
from fixtures.topologies import LAN
from netns.errors import MissingOnHost

pytestmark = pytest.mark.topology(LAN)

FIRST_PORT = 4000
NOBODY = 65534
CHOICES = {"no option": (), "REUSEADDR": ("REUSEADDR",), "REUSEPORT": ("REUSEPORT",), "both options": ("REUSEADDR", "REUSEPORT")}
ANY = {V4: "0.0.0.0", socket.AF_INET6: "[::]"}
ELSEWHERE = {V4: "198.51.100.9", socket.AF_INET6: "[2001:db8:2::9]"}
SOURCE = ("socket(7): SO_REUSEADDR lets a socket bind except where one listens, if both have it; SO_REUSEPORT must be set on each, and all "
          "must have the same effective UID")
# The states of the first socket, which is bound to one of the host's addresses, or ("any") to all.
STATES = {"TCP": ("bound", "bound to any", "listening", "listening on any", "connected", "accepted", "in TIME_WAIT"),
          "UDP": ("bound", "bound to any", "connected")}
PLACES = ("the same address", "any address", "another address")
def shared(state, first, second, stranger=False):
    """What the second socket gets at an address of the first. Only a process has a user: that of a socket in TIME_WAIT is gone."""
    both = set(CHOICES[first]) & set(CHOICES[second])
    same_user = not stranger or state == "in TIME_WAIT"
    return "bound" if "REUSEADDR" in both and "listening" not in state or "REUSEPORT" in both and same_user else "EADDRINUSE"


def expected(state, first, second, place):
    return "bound" if place == "another address" and "any" not in state else shared(state, first, second)


ROWS = {f"{protocol} {state}": (protocol, state) for protocol, states in STATES.items() for state in states}
TWO = Table("binding.reuse", "socket that has the port", "its options, those of the socket that wants it, and where", SOURCE, {
    row: {f"{first}, {second}, {place}": expected(state, first, second, place)
          for first in CHOICES for second in CHOICES for place in PLACES} for row, (_, state) in ROWS.items()})
OWNERS = Table("binding.owner", "socket that has the port", "its options, and those of another user's that wants its address", SOURCE, {
    row: {f"{first}, {second}": shared(state, first, second, stranger=True) for first in CHOICES for second in CHOICES}
    for row, (_, state) in ROWS.items()})


def third(first, second, closed, wanted):
    """What the third of three sockets gets. The second is bound only if it can share; of the two only those that are open count."""
    second_is_bound = shared("bound", first, second) == "bound"
    owners = ([first] if closed != "first" else []) + ([second] if second_is_bound and closed != "second" else [])
    return "bound" if all(shared("bound", owner, wanted) == "bound" for owner in owners) else "EADDRINUSE"


THREE = Table("binding.third", "first socket", "second socket, which of the two has been closed, third socket", SOURCE, {
    f"{protocol}, {first}": {f"{second}, {closed} closed, {wanted}": third(first, second, closed, wanted)
                             for second in CHOICES for closed in ("none", "first", "second") for wanted in CHOICES}
    for protocol in STATES for first in CHOICES})


class Ports:
    """A port for each cell, on the client; sockets that it makes are closed with the cell."""

    def __init__(self, client, server, family, listener):
        self.client, self.server, self.family, self.listener = client, server, family, listener
        self.port = FIRST_PORT
        client.add_address(ELSEWHERE[family].strip("[]"))

    def next(self):
        self.port += 1
        return self.port

    def has(self, stack, protocol, state, choice):
        """A socket with this choice of options, brought into the state."""
        ask = Ask(ANY[self.family] if "any" in state else self.client.address(self.family), CHOICES[choice])
        owner = stack.enter_context(made(self.client, protocol, ask))
        owner.bind((ask.literal, self.port))
        if "listening" in state or state == "accepted":
            owner.listen()
        if state == "accepted":
            peer = stack.enter_context(self.server.socket(self.family))
            peer.connect((self.client.address(self.family), self.port))
            stack.enter_context(self.client.adopt(owner.accept()[0]))
            owner.close()
        elif protocol == "UDP" and state == "connected":
            owner.connect((self.server.address(self.family), FIRST_PORT))
        elif state in ("connected", "in TIME_WAIT"):
            owner.connect((self.server.address(self.family), FIRST_PORT))
            peer = stack.enter_context(self.server.adopt(self.listener.accept()[0]))
            if state == "in TIME_WAIT":
                owner.shutdown(socket.SHUT_WR)
                assert peer.recv(1) == b""
                peer.close()
                assert owner.recv(1) == b""
                owner.close()
        return owner

    def wants(self, stack, protocol, choice, place, stranger=False):
        """A socket that binds there, of another user if it is a stranger, and the outcome."""
        address = {"the same address": self.client.address(self.family), "any address": ANY[self.family]}.get(place, ELSEWHERE[self.family])
        ask = Ask(address, CHOICES[choice])
        sock = stack.enter_context(made(self.client, protocol, ask))
        if stranger:
            disown(sock)
        return sock, bound(sock, ask.literal, self.port) or "bound"


def disown(sock):
    """Make it another user's."""
    try:
        os.fchown(sock.fileno(), NOBODY, -1)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise MissingOnHost(f"user {NOBODY} does not exist in this user namespace") from error


@pytest.fixture
def ports(net, family):
    client, server = net.nodes("client", "server")
    with server.socket(family) as listener:
        listener.bind((server.address(family), FIRST_PORT))
        listener.listen()
        yield Ports(client, server, family, listener)


@pytest.mark.table(TWO)
@pytest.mark.parametrize("row", TWO.rows)
def test_second_socket_shares_a_port_if_the_options_of_both_say_so(ports, row, table):
    """In each state that the first socket can be in; another address of the host is free unless the first has all."""
    protocol, state = ROWS[row]
    for column in table:
        first, second, place = column.split(", ")
        ports.next()
        with ExitStack() as stack:
            ports.has(stack, protocol, state, first)
            table.saw(ports.wants(stack, protocol, second, place)[1])


@pytest.mark.table(OWNERS)
@pytest.mark.parametrize("row", OWNERS.rows)
def test_so_reuseport_shares_a_port_among_the_sockets_of_one_user(ports, row, table):
    """So that no other user can divert connections and datagrams; SO_REUSEADDR does not look at the user."""
    protocol, state = ROWS[row]
    for column in table:
        first, second = column.split(", ")
        ports.next()
        with ExitStack() as stack:
            ports.has(stack, protocol, state, first)
            table.saw(ports.wants(stack, protocol, second, "the same address", stranger=True)[1])


@pytest.mark.table(THREE)
@pytest.mark.parametrize("row", THREE.rows)
def test_third_socket_shares_a_port_if_the_options_of_those_that_have_it_say_so(ports, row, table):
    """What a port's socket was that has been closed, or was refused, does not matter."""
    protocol, first = row.split(", ")
    for column in table:
        second, closed, wanted = column.replace(" closed", "").split(", ")
        ports.next()
        with ExitStack() as stack:
            sockets = {"first": ports.has(stack, protocol, "bound", first)}
            sockets["second"], _outcome = ports.wants(stack, protocol, second, "the same address")
            if closed in sockets:
                sockets[closed].close()
            table.saw(ports.wants(stack, protocol, wanted, "the same address")[1])
