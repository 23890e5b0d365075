"""eventually() and Capture.until() judge what they observe by one rule."""

import socket

import pytest

import netns
from fixtures.topologies import LAN

ODD = netns.Expected("odd", lambda value: value % 2)


@pytest.fixture
def packets():
    """A capture of one segment with data and its acknowledgment."""
    with netns.build(LAN, capture=True) as network:
        conn, peer = netns.tcp_pair(*network.nodes("client", "server"), socket.AF_INET)
        with network["client"].capture("tcp") as packets:
            netns.deliver(conn, peer, 5)
            packets.until("2 packets", lambda seen: len(seen) == 2, within=5)
        yield packets


def by_eventually(packets, value, expected):
    return netns.eventually("the value", lambda: value, expected, within=0)


def by_until(packets, value, expected):
    return packets.until("the value", lambda seen: value, expected, within=0)


@pytest.fixture(params=[by_eventually, by_until])
def judged(request, packets):
    return lambda value, expected: request.param(packets, value, expected)


@pytest.mark.parametrize("value, expected", [
    (3, 3), ([1], [1]), ({}, {}), (3, ODD), (3, netns.at_least(2)), ([1], True), ("x", True), ([], False), (None, False), (True, True),
], ids=str)
def test_a_value_is_as_expected(judged, value, expected):
    """A value, a condition with a name, or the truth of the value."""
    assert judged(value, expected) is value


@pytest.mark.parametrize("value, expected, words", [
    (2, 3, ("3", "2")), ([1], [], (r"\[\]", r"\[1\]")), (2, ODD, ("odd", "2")),
    (1, netns.at_least(2), ("at least 2", "1")),
    ([1], False, ("False", r"\[1\]")), ([], 0, ("0", r"\[\]")),
], ids=str)
def test_a_value_that_is_not_as_expected_is_said_with_it(judged, value, expected, words):
    wanted, last = words
    with pytest.raises(netns.ExpectationFailed,
                       match=rf"expected {wanted}( the value)? within 0 s, last value {last}(; captured 2:|$)") as failure:
        judged(value, expected)
    assert "the value" in str(failure.value)


def test_until_shows_the_packets_of_a_wrong_value(packets):
    with pytest.raises(netns.ExpectationFailed) as failure:
        packets.until("packets with data", lambda seen: len([each for each in seen if each.length]), netns.at_least(2), within=0)
    first, *lines = str(failure.value).splitlines()
    assert first == "tcp packets of client: expected at least 2 packets with data within 0 s, last value 1; captured 2:" and len(lines) == 2


@pytest.mark.parametrize("observe, expected, message", [
    (lambda *seen: 1, lambda value: value, "needs a name for the value, and a condition with a name: Expected, at_least"),
    (netns.at_least(2), True, "needs a function that returns the value, and the expected value after it"),
    (2, True, "needs a function that returns the value, and the expected value after it"),
], ids=["a condition without name", "no observer but a condition", "no observer but a value"])
def test_what_cannot_be_judged_is_refused(packets, observe, expected, message):
    for wait in (netns.eventually, packets.until):
        with pytest.raises(TypeError, match=f"^{wait.__name__}.. {message}"):
            wait("the value", observe, expected, within=1)


def test_nothing_can_be_waited_for_without_a_name(packets):
    with pytest.raises(TypeError, match="^until.. needs a name"):
        packets.until(len, 2, within=1)
