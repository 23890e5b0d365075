"""What rules of nftables and iptables do with packets: limits, quotas, objects, order, replacement. Source: nft(8),
iptables-extensions(8)."""

import re
import socket
import threading

import pytest

from fixtures.gate import TABLE, V4, Gate
from fixtures.nat import waiting
from fixtures.topologies import LAN
from netns import CommandError, missing_feature
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(LAN)

BOTH = pytest.mark.parametrize("flavour", ["iptables-legacy", "iptables-nft"])


@pytest.fixture
def gate(net, family):
    return Gate(*net.nodes("client", "server"), family)


def iptables(host, family, flavour, *rules):
    """Add rules to the filter table's INPUT, or another "TABLE CHAIN". Raises MissingFeature."""
    tool = flavour if family == V4 else flavour.replace("ip", "ip6", 1)
    for rule in rules:
        try:
            host.run([tool, "-w", *rule.split()])
        except CommandError as error:
            raise missing_feature(f"{flavour} does not support {rule}", error) from error


@pytest.mark.virtual_clock("takes 5 s")
def test_limit_lets_its_burst_through_and_then_its_rate(gate, clock, measure):
    """nft(8), limit: 5 packets at once; within the next second, at 10 a second, ten more, of which the burst is the most that waits."""
    gate.rules("udp dport 7000 limit rate 10/second burst 5 packets accept", "udp dport 7000 drop")
    first = gate.passed(7000, count=20)
    clock.sleep(0.25)
    second = gate.passed(7000, count=20)
    clock.sleep(5)
    third = gate.passed(7000, count=20)

    measure("sets.limit", first, "packets")
    assert 5 <= first <= 6 and 2 <= second <= 3 and 5 <= third <= 6


def test_limit_over_matches_what_exceeds_it(gate):
    """nft(8), limit rate over: the others, for a rule that drops them. By bytes: 2 packets of 1000 bytes are in a burst of 2500."""
    header = 28 if gate.family == V4 else 48
    gate.rules("udp dport 7000 limit rate over 1/hour burst 3 packets drop",
               "udp dport 7001 limit rate over 1 bytes/second burst 2500 bytes drop")

    assert (gate.passed(7000, count=5), gate.passed(7001, count=5, size=1000 - header)) == (3, 2)


def test_quota_is_used_up_by_bytes(gate):
    """nft(8), quota: "until" matches up to so many bytes, packets with their headers; "over" matches from then on."""
    header = 28 if gate.family == V4 else 48
    gate.rules("udp dport 7000 quota until 3000 bytes accept", "udp dport 7000 drop", "udp dport 7001 quota over 3000 bytes drop")

    assert [gate.passed(port, count=5, size=1000 - header) for port in (7000, 7001)] == [3, 3]


def test_named_quota_begins_anew_when_it_is_reset(gate):
    """nft(8), stateful objects: one quota for many rules, and what was used is listed once and forgotten."""
    header = 28 if gate.family == V4 else 48
    gate.run("add quota {table} allowance { over 2000 bytes }")
    gate.rules("udp dport 7000 quota name allowance drop", "udp dport 7001 quota name allowance drop")
    assert (gate.passed(7000, count=1, size=1000 - header), gate.passed(7001, count=3, size=1000 - header)) == (1, 1)
    listed = gate.run("reset quota {table} allowance")

    assert int(re.search(r"used (\d+) bytes", listed)[1]) >= 2000
    assert gate.passed(7001, count=3, size=1000 - header) == 2


def test_named_counter_outlives_its_rules(gate):
    """nft(8), stateful objects: rules may be replaced, the object counts on; "reset" returns the count and clears it."""
    gate.run("add counter {table} hits")
    gate.rules("udp dport 7000 counter name hits")
    gate.passed(7000, count=2)
    gate.run("flush chain {table} entry", "add rule {table} entry udp dport 7001 counter name hits")
    gate.passed(7001, count=3)

    assert "packets 5 " in gate.run("reset counter {table} hits")
    assert "packets 0 " in gate.run("list counter {table} hits")


def test_failed_transaction_changes_nothing(gate):
    """nft(8), -f: atomic. A batch whose last command fails has neither flushed a chain nor added its rules and elements."""
    gate.run("add set {table} ports { type inet_service; elements = { 7000 }; }")
    gate.rules("udp dport @ports drop")
    failure = gate.failure("flush chain {table} entry", "add element {table} ports { 7001 }",
                           "add rule {table} entry udp dport 7002 drop", "delete rule {table} entry handle 4711")
    assert re.search("No such file|does not exist", failure)

    assert [gate.passed(port) for port in (7000, 7001, 7002)] == [0, 1, 1]


def test_no_packet_passes_while_a_ruleset_is_replaced(gate):
    """One transaction flushes and adds: each packet sees the rules before or those after, never none (nft(8), -f), while another thread
    replaces them forty times."""
    gate.rules("udp dport 7000 drop")
    stopped = threading.Event()

    def replace():
        for _ in range(40):
            gate.run("flush chain {table} entry", "add rule {table} entry udp dport 7000 drop")
        stopped.set()

    replacing = threading.Thread(target=replace)
    inbox, target = gate.inbox(7000), (gate.server.address(gate.family), 7000)
    outbox, sent = gate.client.socket(gate.family, socket.SOCK_DGRAM), 0
    replacing.start()
    while not stopped.is_set():
        outbox.sendto(b"x", target)
        sent += 1
    replacing.join()
    fence(gate.client, gate.server, target[0])

    assert (waiting([inbox]), sent > 1) == ([False], True)
    gate.run("flush chain {table} entry")
    assert gate.passed(7000) == 1


def test_drop_is_final_and_accept_is_not(gate):
    """nft(8), Base chains: a packet that one chain accepts goes on to the chains of higher priority; one that is dropped does not."""
    gate.run("add chain {table} early { type filter hook input priority -10; }",
             "add chain {table} late { type filter hook input priority 10; }",
             "add rule {table} early udp dport 7000 accept", "add rule {table} late udp dport 7000 counter drop",
             "add rule {table} early udp dport 7001 drop", "add rule {table} late udp dport 7001 counter accept")

    assert (gate.passed(7000), gate.passed(7001)) == (0, 0)
    chain = gate.run("list chain {table} late")
    assert [line.split("packets ")[1].split()[0] for line in chain.splitlines() if "packets" in line] == ["1", "0"]


def test_policy_is_for_what_no_rule_decides(gate):
    """nft(8), policy: after return from a jump and at the chain's end."""
    gate.run("add chain {table} sub", "add rule {table} sub udp dport 7001 return",
             "add chain {table} strict { type filter hook input priority 5; policy drop; }",
             "add rule {table} strict udp dport 7000 accept",
             "add rule {table} strict udp dport 7001 jump sub", "add rule {table} strict udp dport != 7000-7009 accept",
             "add rule {table} strict meta l4proto ipv6-icmp accept")

    assert [gate.passed(port) for port in (7000, 7001, 7002)] == [1, 0, 0]


def test_dormant_table_lets_everything_pass_until_it_wakes(gate):
    """nft(8), flags dormant: its base chains are not in their hooks, and its rules are kept."""
    gate.rules("udp dport 7000 drop")
    found = [gate.passed(7000)]
    for words in ("{ flags dormant; }", "{ }"):
        gate.run(f"add table {TABLE} {words}")
        found.append(gate.passed(7000))

    assert found == [0, 1, 0]


def test_chains_that_jump_in_a_circle_are_refused(gate):
    """A packet must leave the ruleset: nft(8), jump; the kernel says ELOOP or EMLINK, and keeps the rules that it had."""
    gate.run("add chain {table} one", "add chain {table} two", "add rule {table} one jump two",
             "add rule {table} entry udp dport 7000 jump one")
    assert re.search("Too many (links|levels of symbolic links)", gate.failure("add rule {table} two jump one"))

    assert gate.passed(7000) == 1


def test_queue_without_a_reader_drops_unless_it_may_be_bypassed(net, family):
    """nft(8), queue bypass; iptables-extensions(8), --queue-bypass: an intrusion prevention system that has died blocks the host or does
    not."""
    gate = Gate(*net.nodes("client", "server"), family, "add rule {table} entry udp dport 7000 queue num 5",
                "add rule {table} entry udp dport 7001 queue num 5 bypass")

    assert (gate.passed(7000), gate.passed(7001)) == (0, 1)


def test_connections_mark_comes_back_with_its_answers(gate):
    """nft(8), ct mark: set from the packet's mark in one direction, restored in the other, as multi-homed routers and meshes do."""
    gate.rules("udp dport 7000 ct mark set 7")
    gate.run("add chain {table} out { type filter hook output priority 0; }", "add rule {table} out meta mark set ct mark",
             "add rule {table} out udp sport 7000-7001 meta mark 7 counter")
    for port in (7000, 7001):
        inbox = gate.inbox(port)
        outbox = gate.client.socket(gate.family, socket.SOCK_DGRAM)
        outbox.settimeout(5)
        outbox.sendto(b"x", (gate.server.address(gate.family), port))
        inbox.sendto(b"y", inbox.recvfrom(10)[1])
        assert outbox.recv(10) == b"y"

    assert "packets 1 " in gate.run("list chain {table} out")


def test_reverse_path_is_checked_by_the_fib_expression(gate):
    """nft(8), fib saddr . iif oif missing: as rp_filter=1 for IPv4, and for IPv6, which has no such sysctl (RFC 3704, 2.2). The source
    is routed elsewhere."""
    foreign, prefix = ("198.18.0.9", 32) if gate.family == V4 else ("2001:db8:99::9", 128)
    gate.client.add_address(f"{foreign}/{prefix}", "server")
    gate.rules("udp dport 7000 fib saddr . iif oif missing drop")
    before = [gate.passed(7000, source=(address, 0)) for address in (gate.client.address(gate.family), foreign)]
    gate.server.run(["ip", "route", "add", foreign, "via", gate.client.address(gate.family)])

    assert (before, gate.passed(7000, source=(foreign, 0))) == ([1, 0], 1)


@BOTH
def test_targets_and_matches_of_iptables_work_in_both_families(net, family, flavour):
    """MARK and the mark match, NFLOG and TRACE: some stable releases had lost the targets of ip6tables (tailscale #13863, microk8s #4961;
    "netfilter: xtables: avoid NFPROTO_UNSPEC where needed", 6.6.57)."""
    client, server = net.nodes("client", "server")
    gate = Gate(client, server, family)
    iptables(server, family, flavour, "-t mangle -A PREROUTING -p udp --dport 7000 -j MARK --set-mark 9",
             "-A INPUT -p udp --dport 7001 -j NFLOG --nflog-group 3", "-A INPUT -p udp --dport 7001 -j CONNMARK --set-mark 4",
             "-A INPUT -m mark --mark 9 -j DROP", "-A INPUT -m connmark --mark 4 -j DROP",
             "-t raw -A PREROUTING -p udp --dport 7002 -j TRACE")

    assert [gate.passed(port) for port in (7000, 7001, 7002)] == [0, 0, 1]


@BOTH
@pytest.mark.virtual_clock("takes 11 s")
def test_recent_matches_sources_that_came_often_enough(net, family, clock, flavour):
    """iptables-extensions(8), recent: --update --seconds 10 --hitcount 3 drops from the third packet on; 10 s without any lets the
    source in again, as for brute force against ssh."""
    client, server = net.nodes("client", "server")
    gate = Gate(client, server, family)
    iptables(server, family, flavour,
             "-A INPUT -p udp --dport 7000 -m recent --name tries --set",
             "-A INPUT -p udp --dport 7000 -m recent --name tries --update --seconds 10 --hitcount 3 -j DROP")
    found = [gate.passed(7000) for _attempt in range(4)]
    clock.sleep(11)

    assert (found, gate.passed(7000)) == ([1, 1, 0, 0], 1)


@BOTH
def test_hashlimit_keeps_a_bucket_for_each_source(net, family, flavour):
    """iptables-extensions(8), hashlimit by srcip: the burst of 2 is each source's own."""
    client, server = net.nodes("client", "server")
    gate = Gate(client, server, family)
    second = ("192.0.2.7", 24) if family == V4 else ("2001:db8:1::7", 64)
    client.add_address(f"{second[0]}/{second[1]}", "server")
    iptables(server, family, flavour, "-A INPUT -p udp --dport 7000 -m hashlimit --hashlimit-name each --hashlimit-mode srcip "
             "--hashlimit-above 1/hour --hashlimit-burst 2 -j DROP")

    assert [gate.passed(7000, count=4, source=(address, 0)) for address in (client.address(family), second[0])] == [2, 2]


@BOTH
@pytest.mark.virtual_clock("takes 6 s")
def test_ipset_ends_its_elements_and_counts_down(net, family, clock, flavour):
    """ipset(8), timeout: an element leaves the set by itself; -exist with a new timeout renews it; the SET target adds sources."""
    client, server = net.nodes("client", "server")
    gate = Gate(client, server, family)
    server.run(["ipset", "create", "banned", "hash:ip", "family", "inet" if family == V4 else "inet6", "timeout", "3"])
    iptables(server, family, flavour, "-A INPUT -p udp --dport 7001 -j SET --add-set banned src",
             "-A INPUT -p udp --dport 7000 -m set --match-set banned src -j DROP")
    gate.passed(7001)
    assert gate.passed(7000) == 0
    clock.sleep(2)
    server.run(["ipset", "add", "banned", client.address(family), "timeout", "3", "-exist"])
    clock.sleep(2)
    assert gate.passed(7000) == 0
    clock.sleep(2)

    assert gate.passed(7000) == 1
