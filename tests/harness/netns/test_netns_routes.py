"""Routes, rules and addresses as messages, and processes of other users: what the tables of routing and devices build on."""

import errno
import os
import socket
from pathlib import Path

import pytest

import netns
from fixtures.topologies import PAIR
from netns.hosts.actor import Actor
from netns.hosts.namespace import Joined
from netns.hosts.user import User
from netns.netlink import routes


@pytest.fixture
def client():
    with netns.build(PAIR) as network:
        yield network["client"]


def test_a_route_shows_the_words_that_it_was_made_with(client, family):
    to, via = ("203.0.113.0/24", "192.0.2.2") if family == socket.AF_INET else ("2001:db8:9::/48", "2001:db8:1::2")
    option = "-4" if family == socket.AF_INET else "-6"
    words = {"via": via, "dev": client.interfaces["left"].index, "metric": 7, "mtu": 1300, "protocol": 4}
    routes.carry_out(client.namespace, [routes.route("add", to, **words)])
    shown = [each for each in routes.shown(client.namespace, family) if each["to"] == to]
    assert [{word: each[word] for word in words} for each in shown] == [words]
    assert f"{to} via {via} dev to-left proto static metric 7 mtu 1300" in client.run(["ip", option, "route"])


def test_each_request_has_an_outcome_of_its_own(client):
    rule = routes.rule(socket.AF_INET, priority=9, table=100)
    requests = [routes.route("delete", "203.0.113.0/24"), rule, rule]
    assert routes.outcomes(client.namespace, requests) == [errno.ESRCH, 0, errno.EEXIST]
    assert "9:\tfrom all lookup 100" in client.run(["ip", "rule"])
    with pytest.raises(OSError, match="request 0") as refused:
        routes.carry_out(client.namespace, requests[:1])
    assert refused.value.errno == errno.ESRCH


class Status:
    def __init__(self, user):
        user.become()

    def fields(self):
        status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return status["Uid"].split()[0], int(status["CapEff"], 16)


@pytest.mark.parametrize("user, uid, has, lacks", [
    (User(0, ("CAP_NET_ADMIN",), but=True), "0", 1 << 13, 1 << 12),
    (User(1000), "1000", 0, 1 << 12),
    (User(1000, ("CAP_NET_ADMIN",)), "1000", 1 << 12, 1 << 13),
    (User(1000, ("CAP_NET_RAW",), but=True, namespace=True), "0", 1 << 12, 1 << 13),
], ids=["root with less", "user", "user with one", "root of a namespace"])
def test_a_user_has_the_capabilities_that_it_is_said_to_have(client, user, uid, has, lacks):
    if os.geteuid():
        pytest.skip("only root becomes another user")
    with Actor(lambda: Status(user)) as actor:
        found, capabilities = actor.call("fields")
    assert (found, capabilities & has, capabilities & lacks) == (uid, has, 0)


def test_the_network_namespace_of_a_process_is_joined(client):
    if os.geteuid():
        pytest.skip("only root becomes another user")
    with client.entered(), Actor(lambda: Status(User(1000, (), but=True, namespace=True, network=True))) as actor, \
            Joined(actor.pid) as namespace:
        assert routes.shown(namespace, socket.AF_INET) == []
        with namespace.entered():
            assert os.readlink("/proc/thread-self/ns/net") == os.readlink(f"/proc/{actor.pid}/ns/net")
