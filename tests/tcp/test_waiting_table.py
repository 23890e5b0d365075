"""Who waits for a listener with epoll(7) is told of each connection that accept(2) would return, however it got there."""

import select

import pytest

from fixtures.table import Table
from fixtures.topologies import LAN
from netns import MissingFeature
from netns.traffic import opening
from netns.traffic.scripted import Peer
from netns.traffic.states import PINNED

pytestmark = pytest.mark.topology(LAN)

EXTRA = {"net.ipv4.tcp_fastopen": 0x203}    # data in a SYN, without a cookie
WAYS = {"EPOLLIN": select.EPOLLIN, "EPOLLIN, EPOLLET": select.EPOLLIN | select.EPOLLET,
        "EPOLLIN, EPOLLEXCLUSIVE": select.EPOLLIN | select.EPOLLEXCLUSIVE,
        "EPOLLIN, EPOLLONESHOT": select.EPOLLIN | select.EPOLLONESHOT}


def acknowledge(case, data=b""):
    case.line.say("PA" if data else "A", data)


def completed(peer, wait):
    case = opening.syn_received(peer)
    wait(case.listener)
    acknowledge(case)
    return case


def deferred(peer, wait):
    """TCP_DEFER_ACCEPT: the first data completes it (tcp(7))."""
    case = opening.syn_received(peer, opening.deferring)
    acknowledge(case)
    wait(case.listener)
    acknowledge(case, b"x")
    return case


def fast_opened(peer, wait):
    """Data in the SYN: RFC 7413, 4.2.2."""
    case = opening.fast_opening(peer)
    wait(case.listener)
    case.line.say("S", b"x")
    return case


def inherited(peer, wait, done):
    """The listener closes when the handshake is `done`, or half of it; another one of its SO_REUSEPORT group is left."""
    case = opening.listening(peer, reuseport=True)
    case.line.open()
    if done:
        acknowledge(case)
    heir = opening.group_member(case)
    wait(heir)
    case.listener.close()
    case.listener = heir
    if not done:
        acknowledge(case)
    return case


EVENTS = {
    "handshake completed": completed, "data for TCP_DEFER_ACCEPT": deferred, "data in the SYN, TCP_FASTOPEN": fast_opened,
    "listener closed in the handshake, another takes over": lambda peer, wait: inherited(peer, wait, False),
    "listener closed before accept(), another takes over": lambda peer, wait: inherited(peer, wait, True),
}
TABLE = Table("tcp.waiting", "how the connection comes", "how it is waited for", "epoll(7); accept(2); ip-sysctl.rst, tcp_migrate_req", {
    event: dict.fromkeys(WAYS, "told, accepted") for event in EVENTS})


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_listener_is_readable_when_a_connection_waits(net, family, row, table):
    """And the program that waits is woken: one edge is enough."""
    client, server = net.nodes("client", "server")
    server.pin({**PINNED, **EXTRA})
    if "takes over" in row:
        try:
            server.pin({"net.ipv4.tcp_migrate_req": 1})
        except FileNotFoundError as error:
            raise MissingFeature("the kernel has no tcp_migrate_req") from error
    peer = Peer(client, server, family)
    for column in table:
        with select.epoll() as poll:
            def wait(listener, poll=poll, events=WAYS[column]):
                poll.register(listener, events)
                assert poll.poll(0) == [], "nothing has come yet"

            case = EVENTS[row](peer, wait)
            told = bool(poll.poll(0))
        table.saw(f"{'told' if told else 'not told'}, {'accepted' if case.accept() else 'nothing to accept'}")
        case.listener.close()
