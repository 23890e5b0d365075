"""Scenarios carried out on the running kernel: what each step does and reports."""

import base64

import pytest

from netns import at_least
from netns.observe.bystander import Bystander
from netns.scenario.checks import violations
from netns.scenario.figures import figures, unlike
from netns.scenario.ready import ReadyNetworks, built
from netns.scenario.run import observe
from netns.scenario.steps import LACKING

LISTENING = (
    {"do": "socket", "host": "server", "name": "listener", "kind": "tcp"},
    {"do": "bind", "socket": "listener", "address": "any", "port": 80},
    {"do": "listen", "socket": "listener", "backlog": 5},
    {"do": "socket", "host": "client", "name": "conn", "kind": "tcp"},
)
CONNECTED = (
    *LISTENING, {"do": "connect", "socket": "conn", "address": "server", "port": 80}, {"do": "wait", "seconds": 0.05},
    {"do": "accept", "socket": "listener", "name": "peer"},
)
SENDING = ({"do": "socket", "host": "client", "name": "sender", "kind": "udp"},
           {"do": "send", "socket": "sender", "size": 10, "address": "server", "port": 5000})


@pytest.fixture(params=("ipv4", "ipv6"))
def family(request):
    return request.param


def results(family, *steps, hosts=2):
    scenario = {"version": 1, "family": family, "hosts": hosts, "steps": list(steps)}
    with built(scenario) as network:
        seen = observe(scenario, network)
    return [result for result, _at in seen["steps"]], seen


@pytest.mark.parametrize("hosts", [2, 3])
def test_connection_is_made_and_carries_data(family, hosts):
    found, seen = results(family, *CONNECTED, {"do": "send", "socket": "conn", "size": 1000}, {"do": "wait", "seconds": 0.05},
                          {"do": "receive", "socket": "peer", "size": 400}, {"do": "poll", "socket": "peer"}, hosts=hosts)
    assert found[4:] == ["EINPROGRESS", "done", "from client", "1000 bytes", "done", "400 bytes", "IN OUT"]
    assert seen["sockets"]["conn"]["state"] == "ESTABLISHED" and seen["sockets"]["listener"]["state"] == "LISTEN"
    assert len(seen["hosts"]) == hosts and seen["hosts"]["client"]["frames"]


def test_events_of_sockets_are_noted_while_time_passes(family):
    refused = ({"do": "socket", "host": "client", "name": "conn", "kind": "tcp"},
               {"do": "connect", "socket": "conn", "address": "server", "port": 80}, {"do": "wait", "seconds": 0.05},
               {"do": "errors", "socket": "conn"})
    found, seen = results(family, *refused)
    assert found[-1] == "ECONNREFUSED"
    assert seen["events"][-1][:2] == ["conn", "IN OUT ERR HUP RDHUP"]


@pytest.mark.parametrize("fields, state", [
    ({"flags": "RA"}, "CLOSE"), ({"flags": "RA", "seq": 1 << 31}, "ESTABLISHED"), ({"flags": "RA", "bad_checksum": True}, "ESTABLISHED"),
    ({"flags": "FA"}, "CLOSE_WAIT"), ({"flags": "FA", "seq": 100}, "ESTABLISHED"),
])
def test_segment_refers_to_what_the_socket_expects(family, fields, state):
    _found, seen = results(family, *CONNECTED, {"do": "segment", "socket": "conn", **fields}, {"do": "wait", "seconds": 0.05})
    assert seen["sockets"]["conn"]["state"] == state


def test_icmp_error_is_about_the_last_packet(family):
    found, _seen = results(family, *SENDING, {"do": "option", "socket": "sender", "option": "IP_RECVERR", "value": 1},
                           {"do": "send", "socket": "sender", "size": 10, "address": "nowhere", "port": 5000},
                           {"do": "icmp", "socket": "sender", "error": "admin-prohibited"}, {"do": "wait", "seconds": 0.05},
                           {"do": "errors", "socket": "sender"}, hosts=3)
    assert found[-3] == "sent" and found[-1].startswith(("EHOSTUNREACH", "EACCES"))


def test_configuration_decides_over_packets(family):
    words = {"do": "send", "socket": "sender", "size": 10, "address": "nowhere", "port": 5000}
    found, seen = results(
        family, SENDING[0], {"do": "route", "host": "client", "operation": "add", "to": "nowhere", "type": "prohibit"}, words,
        {"do": "route", "host": "client", "operation": "add", "to": "nowhere", "type": "prohibit"},
        {"do": "rule", "host": "client", "operation": "add", "action": "blackhole", "priority": 100, "to": "nowhere"}, words,
        {"do": "link", "host": "client", "peer": "server", "up": False}, SENDING[1],
        {"do": "sysctl", "host": "client", "name": "net.ipv4.tcp_ecn", "value": 1},
        {"do": "address", "host": "server", "address": "spare", "operation": "add"})
    assert found == ["made", "done", "EACCES", "EEXIST", "done", "EINVAL", "done", "ENETUNREACH", "1", "done"]
    assert any("type prohibit" in route for route in seen["routes"]["client"])


@pytest.mark.parametrize("verdict, error", [("drop", "none"), ("reject", "ECONNREFUSED"), ("reset", "ECONNREFUSED")])
def test_firewall_drops_or_answers_segments(family, verdict, error):
    found, _seen = results(family, *LISTENING, {"do": "firewall", "host": "server", "hook": "input", "match": "syn", "verdict": verdict},
                           {"do": "connect", "socket": "conn", "address": "server", "port": 80}, {"do": "wait", "seconds": 0.05},
                           {"do": "errors", "socket": "conn"}, {"do": "flush", "host": "server"}, {"do": "wait", "seconds": 1.2},
                           {"do": "accept", "socket": "listener", "name": "peer"})
    assert found[4:6] == ["done", "EINPROGRESS"] and found[7].startswith(error) and found[8] == "done"
    assert verdict != "drop" or found[10] == "from client"      # the SYN that was sent again


def test_echo_is_answered_and_raw_packets_arrive(family):
    found, _seen = results(
        family, {"do": "socket", "host": "client", "name": "echo", "kind": "ping"},
        {"do": "send", "socket": "echo", "size": 56, "address": "server"}, {"do": "wait", "seconds": 0.05},
        {"do": "receive", "socket": "echo", "size": 1000}, {"do": "socket", "host": "server", "name": "taker", "kind": "raw"},
        {"do": "socket", "host": "client", "name": "plain", "kind": "raw"},
        {"do": "send", "socket": "plain", "size": 5, "address": "server"},
        {"do": "wait", "seconds": 0.05}, {"do": "receive", "socket": "taker", "size": 1000})
    assert found[3] == "64 bytes from server" and found[-1] == f"{25 if family == 'ipv4' else 5} bytes from client"


def test_every_end_of_a_connection_shows_its_state(family):
    found, seen = results(family, *CONNECTED, {"do": "shutdown", "socket": "conn", "how": "write"}, {"do": "wait", "seconds": 0.05},
                          {"do": "receive", "socket": "peer", "size": 10},
                          {"do": "option", "socket": "peer", "option": "SO_LINGER", "value": 0}, {"do": "close", "socket": "peer"},
                          {"do": "wait", "seconds": 0.05}, {"do": "errors", "socket": "conn"}, {"do": "disconnect", "socket": "conn"},
                          {"do": "poll", "socket": "peer"})
    assert found[7:] == ["done", "done", "0 bytes", "done", "done", "done", "ECONNRESET", "done", "EBADF"]
    assert "peer" not in seen["sockets"]


def test_one_host_alone_has_its_loopback(family):
    found, _seen = results(family, {"do": "socket", "host": "client", "name": "taker", "kind": "udp"},
                           {"do": "bind", "socket": "taker", "address": "loopback", "port": 5000},
                           {"do": "send", "socket": "taker", "size": 3, "address": "loopback", "port": 5000},
                           {"do": "receive", "socket": "taker", "size": 10}, hosts=1)
    assert found == ["made", "done", "3 bytes", "3 bytes from loopback"]


def test_socket_that_no_accept_gave_is_an_ordinary_result(family):
    found, _seen = results(family, *LISTENING, {"do": "accept", "socket": "listener", "name": "peer"}, {"do": "close", "socket": "peer"})
    assert found[4:] == ["EAGAIN", "EBADF"]


def test_ready_network_is_used_once_and_its_links_get_the_scenarios_mtu(family):
    ready = ReadyNetworks()
    ready.build({2: 2})
    steps = [{"do": "socket", "host": "client", "name": "sender", "kind": "udp"},
             {"do": "option", "socket": "sender", "option": "IP_MTU_DISCOVER", "value": 2},
             {"do": "send", "socket": "sender", "size": 1400, "address": "server", "port": 5000}]
    found = []
    for mtus in ([1280], [], []):           # the last one is built when it is wanted
        scenario = {"version": 1, "family": family, "hosts": 2, "mtus": mtus, "steps": steps}
        with ready.taken(scenario) as network:
            found.append((network, observe(scenario, network)["steps"][-1][0]))
        if len(found) < 3:                  # the network is still there
            assert network["client"].counter("sockstat.UDP.inuse" if family == "ipv4" else "sockstat6.UDP6.inuse") == 0
    assert [result for _network, result in found] == ["EMSGSIZE", "1400 bytes", "1400 bytes"]
    assert len({network for network, _result in found}) == 3


def test_figures_of_a_scenario_have_plain_names(family):
    scenario = {"version": 1, "family": family, "hosts": 2, "steps": [
        {"do": "socket", "host": "client", "name": "conn", "kind": "tcp"},
        {"do": "connect", "socket": "conn", "address": "server", "port": 80}, {"do": "wait", "seconds": 0.05},
        {"do": "route", "host": "client", "operation": "add", "to": "nowhere", "type": "unreachable"}]}
    with built(scenario) as network:
        found = figures(observe(scenario, network))
    window = 64240 if family == "ipv4" else 64800       # 44 or 45 segments: tcp_default_init_rwnd()
    expected = {"step 2": "EINPROGRESS", "event 1 of conn": "OUT HUP", "event 2 of conn": "IN OUT ERR HUP RDHUP",
                "state of conn": "CLOSE", "server counts Tcp.OutRsts": 1, "event 2 of conn at": 0,
                f"client sends tcp S window {window}": 1, "server sends tcp RA window 0": 1}
    assert not unlike(expected, found)
    assert "unreachable" in found["routes of client"]
    assert unlike({"step 2": "done", "step 9": None, "event 2 of conn at": 1.0}, found) == {
        "step 2": ("done", "EINPROGRESS"), "event 2 of conn at": (1.0, found["event 2 of conn at"])}


def skip_if_lacking(result):
    if result == LACKING:
        pytest.skip(result)


@pytest.mark.parametrize("kind", ["ipip", "sit", "gre", "vxlan"])
def test_connection_goes_through_a_tunnel_to_its_other_end(family, kind):
    found, seen = results(family, {"do": "tunnel", "host": "server", "peer": "client", "kind": kind}, *LISTENING,
                          {"do": "connect", "socket": "conn", "address": "tunnel", "port": 80}, {"do": "wait", "seconds": 0.2})
    skip_if_lacking(found[0])
    assert found[0] == "done" and seen["sockets"]["conn"]["state"] == "ESTABLISHED"


@pytest.mark.parametrize("mode", ["transport", "tunnel"])
@pytest.mark.parametrize("part, state", [("both", "ESTABLISHED"), ("policies", "SYN_SENT"), ("states", "ESTABLISHED")])
def test_connection_between_neighbours_needs_the_states_that_their_policies_ask_for(family, mode, part, state):
    found, seen = results(family, {"do": "ipsec", "host": "client", "peer": "server", "mode": mode, "part": part}, *CONNECTED)
    skip_if_lacking(found[0])
    assert found[0] == "done" and seen["sockets"]["conn"]["state"] == state
    frames = b"".join(base64.b64decode(host["frames"]) for host in seen["hosts"].values())
    assert (b"\x00\x00\x10\x00" in frames) is (part == "both")        # the SPI of ESP


@pytest.mark.parametrize("kind, port", [("redirect", 81), ("dnat", 81), ("masquerade", 80), ("track", 80)])
@pytest.mark.parametrize("hosts", [2, 3])
def test_translated_connection_is_tracked(family, kind, port, hosts):
    host = "server" if hosts == 2 or kind == "redirect" else "router"
    found, seen = results(family, {"do": "nat", "host": host, "kind": kind}, *LISTENING,
                          {"do": "connect", "socket": "conn", "address": "server", "port": port}, {"do": "wait", "seconds": 0.05},
                          hosts=hosts)
    assert found[0] == "done" and seen["sockets"]["conn"]["state"] == "ESTABLISHED"
    assert seen["tracked"][host] == ["ESTABLISHED assured"]


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_what_a_network_has_sent_before_the_scenario_is_accounted_for_but_not_shown(hosts):
    send = {"do": "send", "socket": "sender", "size": 1, "address": "server" if hosts > 1 else "loopback", "port": 5000}
    scenario = {"version": 1, "family": "ipv4", "hosts": hosts, "steps": [
        {"do": "socket", "host": "client", "name": "sender", "kind": "udp"}, *[send] * 5, {"do": "wait", "seconds": 0.05}]}
    with built(scenario) as network:
        client, bystander = network["client"], Bystander()
        if hosts > 1:
            client.await_counter("Ip6.OutRequests", at_least(1), within=5)      # it joins multicast groups
        shown = base64.b64decode(observe(scenario, network)["hosts"]["client"]["frames"])
        assert violations(network, bystander) == []
        sent = sum(frame.direction == 4 and frame.data[12:14] == b"\x86\xdd" for frame in client.ring.frames)
        assert hosts == 1 or shown.count(b"\x86\xdd\x60") < sent
        client.ring.frames.clear()
        assert {place for place, _what in violations(network, bystander)} == {"packets of client"}      # of one version of IP or both
