"""Sets and maps of nftables: their elements, timeouts and sizes. Source: nft(8), Sets, Maps, Set statement."""

import re

import pytest

from fixtures.gate import V4, Gate
from fixtures.topologies import LAN
from netns import MissingFeature, eventually

pytestmark = pytest.mark.topology(LAN)

BLOCKED, COUNTED, OPEN = 7000, 7001, 7002


@pytest.fixture
def gate(net, family):
    return Gate(*net.nodes("client", "server"), family)


def other(gate, last):
    """One more address of the client."""
    address, prefix = (f"192.0.2.{last}", 24) if gate.family == V4 else (f"2001:db8:1::{last}", 64)
    gate.client.add_address(f"{address}/{prefix}", "server")
    return address


def own(gate):
    return gate.client.address(gate.family)


@pytest.mark.virtual_clock("takes 4 s")
def test_element_ends_after_its_timeout(gate, clock):
    """What the set says of its elements; a longer one of an element's own counts instead. Nothing wakes up at that moment: the next packet
    sees it (nft(8), timeout)."""
    ours, theirs = own(gate), other(gate, 7)
    gate.run("add set {table} banned { type {type}; timeout 2s; }", f"add element {{table}} banned {{ {ours}, {theirs} timeout 4s }}")
    gate.rules("{ip} saddr @banned udp dport 7000 drop")

    def open_to():
        return [gate.passed(BLOCKED, source=(address, 0)) for address in (ours, theirs)]

    assert open_to() == [0, 0]
    clock.sleep(2.1)
    assert open_to() == [1, 0]
    clock.sleep(2.1)
    assert open_to() == [1, 1]


@pytest.mark.virtual_clock("takes 5 s")
def test_update_renews_a_timeout_and_add_does_not(gate, clock):
    """nft(8), Set statement: "update" refreshes the element with each packet, "add" leaves it as it is. Two sources send once a second."""
    gate.run("add set {table} added { type {type}; size 100; flags dynamic,timeout; timeout 3s; }",
             "add set {table} updated { type {type}; size 100; flags dynamic,timeout; timeout 3s; }")
    gate.rules("udp dport 7001 add @added { {ip} saddr }", "udp dport 7002 update @updated { {ip} saddr }")
    gate.passed(COUNTED)
    gate.passed(OPEN)
    gate.rules("{ip} saddr @added udp dport 7003 drop", "{ip} saddr @updated udp dport 7004 drop")
    for _second in range(2):
        clock.sleep(1)
        gate.passed(COUNTED)
        gate.passed(OPEN)
    clock.sleep(1.5)

    assert (gate.passed(7003), gate.passed(7004)) == (1, 0)
    clock.sleep(2)
    assert gate.passed(7004) == 1


def test_full_dynamic_set_takes_no_more_and_its_rule_does_not_match(gate):
    """"size" is the most elements; a packet that cannot be added does not match, and the next rule sees it: a rule that is to drop what
    exceeds a limit per source lets pass what it cannot remember."""
    gate.run("add set {table} seen { type {type}; size 2; flags dynamic; }")
    gate.rules("udp dport 7001 add @seen { {ip} saddr } accept", "udp dport 7001 drop")
    sources = [own(gate), other(gate, 7), other(gate, 8)]

    assert [gate.passed(COUNTED, source=(address, 0)) for address in (*sources, sources[0])] == [1, 1, 0, 1]


@pytest.mark.virtual_clock("takes 4 s")
def test_expired_elements_make_room_in_a_full_set(gate, clock):
    """The garbage collector frees them once in a gc-interval (nft(8)), here of a second, or when an idle machine wakes up, so that a flood
    fills a set for a while only."""
    gate.run("add set {table} seen { type {type}; size 2; flags dynamic,timeout; timeout 2s; gc-interval 1s; }")
    gate.rules("udp dport 7001 update @seen { {ip} saddr } accept", "udp dport 7001 drop")
    sources = [own(gate), other(gate, 7), other(gate, 8)]
    assert [gate.passed(COUNTED, source=(address, 0)) for address in sources] == [1, 1, 0]
    clock.sleep(4)

    eventually("datagrams of a third source that pass", lambda: gate.passed(COUNTED, source=(sources[2], 0)), 1, within=3)


@pytest.mark.virtual_clock("takes 6 s")
def test_element_is_renewed_by_a_transaction_that_deletes_and_adds_it(gate, clock):
    """The way to set a new timeout on any kernel, without a moment in which the element is missing (cs-firewall-bouncer #509)."""
    gate.run("add set {table} banned { type {type}; flags timeout; }", f"add element {{table}} banned {{ {own(gate)} timeout 3s }}")
    gate.rules("{ip} saddr @banned udp dport 7000 drop")
    clock.sleep(2)
    gate.run(f"delete element {{table}} banned {{ {own(gate)} }}", f"add element {{table}} banned {{ {own(gate)} timeout 3s }}")
    clock.sleep(2)

    assert gate.passed(BLOCKED) == 0
    clock.sleep(2)
    assert gate.passed(BLOCKED) == 1


@pytest.mark.virtual_clock("takes 11 s")
def test_element_that_is_added_again_gets_the_new_timeout(gate, clock):
    """Since "netfilter: nf_tables: set element timeout update support"; earlier kernels leave it as it was, without an error
    (cs-firewall-bouncer #509)."""
    gate.run("add set {table} banned { type {type}; flags timeout; }", f"add element {{table}} banned {{ {own(gate)} timeout 2s }}")
    gate.rules("{ip} saddr @banned udp dport 7000 drop")
    gate.run(f"add element {{table}} banned {{ {own(gate)} timeout 10s }}")
    clock.sleep(3)
    blocked = not gate.passed(BLOCKED)
    if not blocked:
        raise MissingFeature("the kernel does not update the timeout of an element (nf_tables)")
    clock.sleep(8)

    assert gate.passed(BLOCKED) == 1


def test_interval_contains_both_its_ends(gate):
    """nft(8), flags interval: a range of ports, and a prefix of addresses; neighbours on both sides are outside."""
    gate.run("add set {table} ports { type inet_service; flags interval; elements = { 7000-7002, 7004 }; }")
    gate.rules("udp dport @ports drop")

    assert [gate.passed(port) for port in range(6999, 7006)] == [1, 0, 0, 0, 1, 0, 1]


def test_overlapping_intervals_are_refused_unless_they_are_merged(gate):
    """auto-merge (nft(8)): without it the kernel says EEXIST, and the whole transaction is undone."""
    gate.run("add set {table} ports { type inet_service; flags interval; elements = { 7000-7002 }; }",
             "add set {table} merged { type inet_service; flags interval; auto-merge; elements = { 7000-7002 }; }")
    gate.rules("udp dport @ports drop")
    failure = gate.failure("add element {table} ports { 6990 }", "add element {table} ports { 7001-7004 }")
    assert re.search("conflicting|exists|overlap", failure)
    gate.run("add element {table} merged { 7001-7004 }")

    assert [gate.passed(port) for port in (6990, 7002, 7003)] == [1, 0, 1]
    assert "7000-7004" in gate.run("list set {table} merged")


def test_concatenation_matches_all_of_its_parts_together(gate):
    """nft(8), Concatenations: an address and a port, as an exact pair and as ranges of both."""
    ours, theirs = own(gate), other(gate, 7)
    last = ours[:-1] + "1"
    gate.run("add set {table} pairs { type {type} . inet_service; }", f"add element {{table}} pairs {{ {ours} . 7000, {theirs} . 7001 }}",
             "add set {table} ranges { type {type} . inet_service; flags interval; }",
             f"add element {{table}} ranges {{ {last}-{ours[:-1]}6 . 7010-7011 }}")
    gate.rules("{ip} saddr . udp dport @pairs drop", "{ip} saddr . udp dport @ranges drop")

    assert [[gate.passed(port, source=(address, 0)) for port in (7000, 7001, 7010, 7011, 7012)] for address in (ours, theirs)] \
        == [[0, 1, 0, 0, 1], [1, 0, 1, 1, 1]]


def test_verdict_map_sends_each_port_its_own_way(gate):
    """nft(8), verdict maps: drop, accept, jump to a chain and come back; what is not listed goes on to the next rule."""
    gate.run("add chain {table} aside", "add rule {table} aside {ip} dscp set cs1", "add counter {table} late",
             "add map {table} ways { type inet_service : verdict; elements = { 7000 : drop, 7001 : accept, 7002 : jump aside }; }")
    gate.rules("udp dport vmap @ways", "udp dport 7000-7003 counter name late")

    assert [gate.passed(port) for port in (7000, 7001, 7002, 7003)] == [0, 1, 1, 1]
    assert "packets 2 " in gate.run("list counter {table} late")


def test_map_gives_each_source_its_mark(gate):
    """nft(8), Maps: a value by a key, here the mark by the source; a source without one is not marked, the rule does not match."""
    ours, theirs = own(gate), other(gate, 7)
    gate.run("add map {table} marks { type {type} : mark; }", f"add element {{table}} marks {{ {ours} : 5, {theirs} : 6 }}")
    gate.rules("udp dport 7000 meta mark set {ip} saddr map @marks", "udp dport 7000 meta mark 5 drop")

    assert [gate.passed(7000, source=(address, 0)) for address in (ours, theirs, other(gate, 8))] == [0, 1, 1]


def test_elements_count_their_own_packets(gate):
    """nft(8), a set with "counter": each element has its own packets and bytes."""
    ours, theirs = own(gate), other(gate, 7)
    gate.run("add set {table} counted { type {type}; counter; }", f"add element {{table}} counted {{ {ours}, {theirs} }}")
    gate.rules("udp dport 7000 {ip} saddr @counted accept")
    gate.passed(7000, count=3, source=(ours, 0))
    gate.passed(7000, count=2, size=10, source=(theirs, 0))

    header = 28 if gate.family == V4 else 48
    listed = gate.run("list set {table} counted")
    assert f"counter packets 3 bytes {3 * (header + 1)}" in listed and f"counter packets 2 bytes {2 * (header + 10)}" in listed


def test_each_source_has_a_limit_of_its_own(gate):
    """nft(8), a dynamic set with a limit for each element (a meter): one source that exceeds it does not use up another's."""
    gate.run("add set {table} meters { type {type}; size 100; flags dynamic; }")
    gate.rules("udp dport 7000 add @meters { {ip} saddr limit rate 1/hour burst 2 packets } accept", "udp dport 7000 drop")

    assert [gate.passed(7000, count=5, source=(address, 0)) for address in (own(gate), other(gate, 7))] == [2, 2]
