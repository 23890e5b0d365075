"""tun devices, raw sockets and qdiscs: what they build, and what they say when something is missing."""

import os
import socket

import pytest

import netns
from fixtures.topologies import LAN
from netns.hosts.qdisc import qdisc
from netns.hosts.tun import Flags, features, tun
from netns.packets.raw import HelloReceiver, HelloSender, outq, row, tx_queue, writable


def test_device_lives_for_the_block_and_is_quiet():
    with netns.build(LAN) as network:
        client = network["client"]
        with tun(client, "stub") as stub:
            assert "stub" in client.run(["ip", "link"])
            assert (stub.drain(), stub.dropped(), stub.ring()) == ([], 0, 500)
        assert "stub" not in client.run(["ip", "link"])


def test_missing_flag_is_named(monkeypatch):
    with netns.build(LAN) as network:
        known = features(network["client"])
        monkeypatch.setattr("netns.hosts.tun.features", lambda _host: known & ~Flags.NAPI)
        with pytest.raises(netns.MissingFeature, match="NAPI"), tun(network["client"], "stub", Flags.TUN | Flags.NAPI):
            pass


def test_forbidden_device_is_named(monkeypatch):
    monkeypatch.setattr("netns.hosts.tun._DEVICE", "/proc/1/mem/none")
    with netns.build(LAN) as network, pytest.raises(netns.MissingFeature, match="cannot open"):
        features(network["client"])


def test_missing_qdisc_is_named():
    with netns.build(LAN) as network, pytest.raises(netns.MissingFeature, match="no qdisc nosuch"):
        with qdisc(network["client"], "to-server", "nosuch"):
            pass


def test_qdisc_is_gone_after_the_block():
    with netns.build(LAN) as network:
        client = network["client"]
        with qdisc(client, "to-server", "pfifo", "limit", "7"):
            assert "pfifo" in client.run(["tc", "qdisc", "show", "dev", "to-server"])
        assert "pfifo" not in client.run(["tc", "qdisc", "show", "dev", "to-server"])


def test_receiver_counts_hellos_that_it_has_no_room_for(family):
    with netns.build(LAN) as network:
        client, server = network.nodes("client", "server")
        receiver, sender = HelloReceiver(server, family, "client"), HelloSender(client, family)
        sender.send_many(client.interfaces["server"].index, 50)
        netns.eventually("datagrams that arrived at the receiver", receiver.arrived, 50, within=5)
        assert sender.taken == 50


def test_send_buffer_is_seen_three_ways(family):
    with netns.build(LAN) as network:
        client = network["client"]
        sender = HelloSender(client, family)
        assert (outq(sender.socket), tx_queue(client, sender.socket), writable(sender.socket)) == (0, 0, True)
        inode = os.fstat(sender.socket.fileno()).st_ino
        sender.socket.close()
        assert row(client, inode) is None


def test_other_protocols_are_not_taken_for_hellos():
    with netns.build(LAN) as network:
        client, server = network.nodes("client", "server")
        receiver = HelloReceiver(server, socket.AF_INET, "client")
        netns.tcp_pair(client, server, socket.AF_INET)
        assert receiver.arrived() == 0
