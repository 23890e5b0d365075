"""IPsec as netns builds it, in the words of `ip xfrm`, which shares no code with it."""

import dataclasses
import socket

import pytest

import netns
from fixtures.topologies import LAN
from netns.netlink import xfrm

pytestmark = pytest.mark.topology(LAN)


@pytest.fixture
def policy(net, family):
    here, there = (host.address(family) for host in net.nodes("client", "server"))
    return xfrm.Policy(
        xfrm.Selector(here, there, socket.IPPROTO_UDP, dport=4000), xfrm.Template(here, there, reqid=7), priority=3
    )


def policies(host):
    return " ".join(host.run(["ip", "xfrm", "policy", "list"]).split())


def test_policy_is_what_ip_xfrm_shows(net, policy):
    client, _server = net.nodes("client", "server")
    xfrm.add(client, policy)

    here, there = policy.template.source, policy.template.destination
    length = 128 if ":" in here else 32
    assert policies(client).startswith(
        f"src {here}/{length} dst {there}/{length} proto udp dport 4000 dir out priority 3 ptype main"
        f" tmpl src {here} dst {there} proto esp reqid 7 mode transport"
    )


def test_policy_of_marked_packets_and_an_interface_is_what_ip_xfrm_shows(net, policy):
    client, _server = net.nodes("client", "server")
    optional = dataclasses.replace(policy.template, optional=True)
    marked = dataclasses.replace(policy, template=optional, mark=(1, 0xFF), interface=9)
    xfrm.add(client, marked)

    shown = policies(client)
    assert ("mark 0x1/0xff" in shown, "if_id 0x9" in shown, "level use" in shown) == (True, True, True)
    xfrm.delete(client, marked)
    assert policies(client) == ""


def test_policy_without_template_for_prefixes_and_any_port(net):
    client, _server = net.nodes("client", "server")
    xfrm.add(client, xfrm.Policy(xfrm.Selector("2001:db8::/32", "::/0", sport=53), direction="fwd", action="block"))

    assert policies(client) == "src 2001:db8::/32 dst ::/0 sport 53 dir fwd action block priority 0 ptype main"


def test_update_replaces_and_delete_removes(net, policy):
    client, _server = net.nodes("client", "server")
    xfrm.add(client, policy)
    xfrm.update(client, dataclasses.replace(policy, priority=9))
    updated = policies(client)
    xfrm.delete(client, policy)

    assert ("priority 9" in updated, updated.count("dir out"), policies(client)) == (True, 1, "")


def test_sa_is_what_ip_xfrm_shows(net, family):
    client, server = net.nodes("client", "server")
    key = bytes(range(1, 21))
    sa = xfrm.SA(client.address(family), server.address(family), 0xC0DE, reqid=7, mode="tunnel", key=key)
    xfrm.add(client, sa)
    shown = " ".join(client.run(["ip", "xfrm", "state", "list"]).split())
    xfrm.delete(client, sa)

    assert shown.startswith(f"src {sa.source} dst {sa.destination} proto esp spi 0x0000c0de reqid 7 mode tunnel")
    assert "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128" in shown
    assert client.run(["ip", "xfrm", "state", "list"]) == ""


@pytest.mark.parametrize("kind", ["bitmap", "ESN"])
def test_sequence_numbers_of_an_sa_are_those_that_ip_xfrm_shows(net, kind):
    """The highest number received is 37, of a window of 64: 37 bits, without those that are missing."""
    client, server = net.nodes("client", "server")
    replay = xfrm.Replay(kind, 64, sent=5, received=37, missing=frozenset({1, 36}))
    xfrm.add(client, xfrm.SA(client.address(socket.AF_INET), server.address(socket.AF_INET), 0xC0DE, replay=replay))
    shown = " ".join(client.run(["ip", "-s", "xfrm", "state", "list"]).split())

    assert "seq-hi 0x0, seq 0x25, oseq-hi 0x0, oseq 0x5" in shown
    assert "fffffffe 00000017" in shown


def test_what_is_there_already_is_refused_by_its_name(net, policy):
    client, _server = net.nodes("client", "server")
    xfrm.add(client, policy)
    with pytest.raises(FileExistsError, match="Selector.*dport=4000"):
        xfrm.add(client, policy)


def test_packet_that_needs_an_sa_is_counted(net, policy):
    client, server = net.nodes("client", "server")
    xfrm.add(client, dataclasses.replace(policy, template=None, action="block"))
    family = socket.AF_INET6 if ":" in policy.selector.source else socket.AF_INET
    with pytest.raises(PermissionError):
        client.socket(family, socket.SOCK_DGRAM).sendto(b"x", (server.address(family), 4000))

    assert client.counter("XfrmOutPolBlock") == 1


def test_key_manager_that_hears_nothing_says_what_it_heard_before(net, policy):
    client, server = net.nodes("client", "server")
    family = socket.AF_INET6 if ":" in policy.selector.source else socket.AF_INET
    manager = xfrm.KeyManager(client)
    xfrm.add(client, policy)
    client.socket(family, socket.SOCK_DGRAM).connect((server.address(family), 4000))

    assert manager.next(within=1).reqid == 7
    with pytest.raises(netns.ExpectationFailed, match=r"no message within 0\.\d+ s; earlier ones: \[Acquire\(.*reqid=7"):
        manager.next(within=0.1)


def test_sa_with_a_long_window_and_an_interface(net):
    client, server = net.nodes("client", "server")
    here, there = (host.address(socket.AF_INET) for host in (client, server))
    sa = xfrm.SA(here, there, 0xC0DE, window=4, interface=42, icmp=True)
    xfrm.add(client, sa, xfrm.Policy(xfrm.Selector(here, there), xfrm.Template(here, there), icmp=True))

    state = " ".join(client.run(["ip", "-d", "xfrm", "state", "list"]).split())
    assert "flag icmp esn" in state
    assert "replay_window 128, bitmap-length 4" in state
    assert "if_id 0x2a" in state
    assert "flag icmp" in " ".join(client.run(["ip", "-d", "xfrm", "policy", "list"]).split())
