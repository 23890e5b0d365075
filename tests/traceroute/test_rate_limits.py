"""How many probes a router answers: limits per destination, and a global one (ip-sysctl.rst, icmp(7))."""

import socket
from contextlib import ExitStack

import pytest

from fixtures.icmp_errors import V4
from fixtures.topologies import ROUTED
from netns import approx_timer, eventually, stopwatch, timer_slack
from netns.attempt import errno_of, refused, so_error
from netns.hosts.sysctl import global_sysctl
from netns.packets import segment
from netns.packets.probe import answers, probe

pytestmark = pytest.mark.topology(ROUTED)

RATELIMIT = {V4: "net.ipv4.icmp_ratelimit", socket.AF_INET6: "net.ipv6.icmp.ratelimit"}
EXPIRED = {V4: "Ip.InHdrErrors", socket.AF_INET6: "Ip6.InHdrErrors"}
# Destination unreachable, source quench, time exceeded, parameter problem; ICMPv6: all but packet too big.
DEFAULT_MASK = 6168
DEFAULT_MASKS = {"net.ipv4.icmp_ratemask": DEFAULT_MASK, "net.ipv6.icmp.ratemask": "0-1,3-127"}
# Tokens that a destination can accumulate: XRLIM_BURST_FACTOR, net/ipv4/icmp.c.
BURST = 6
# Seconds to the next answer.
INTERVALS = {V4: [1], socket.AF_INET6: [1, 0.25]}


@pytest.fixture
def answered(net, family):
    """answered(count, kind, ttl): how many of `count` probes sent at once get an answer."""
    client, server, router = net.nodes("client", "server", "router")

    def send(count, kind="udp", ttl=1):
        handled = EXPIRED[family] if ttl == 1 else {"icmp": "Icmp.InEchos", "udp": "Udp.NoPorts"}[kind]
        host = router if ttl == 1 else server
        before = host.counter(handled)
        with client.capture() as packets:
            for number in range(count):
                probe(client, kind, client.address(family), server.address(family), ttl, sport=33000 + number)
            host.await_counter(handled, count, within=5, since=before)
            return len(answers(packets))

    return send


def test_icmp_ratelimit_allows_a_burst_and_then_one_per_interval(net, family, answered, clock, measure):
    """icmp_ratelimit=1000 ms: 6 answers at once, the next one 1 s after the first. Over IPv6 kernels without "ipv6:
    icmp: remove obsolete code in icmpv6_xrlim_allow()" shorten the interval for a route back to a prefix: 1 s / 4 for a
    /64; with it the default of net.ipv6.icmp.ratelimit is 100 ms instead."""
    net["router"].pin({RATELIMIT[family]: 1000, **DEFAULT_MASKS})
    clock.align(1)
    with stopwatch() as took:
        first = answered(10)
        eventually("responses to one probe", lambda: answered(1), 1, within=5)

    assert measure("traceroute.answers_at_once", first, "answers") == BURST
    next_after = measure("traceroute.next_answer_after", took.seconds, "s", timer_slack(1))
    assert next_after in [approx_timer(interval) for interval in INTERVALS[family]]


@pytest.mark.virtual_clock("waits until the token bucket is full")
def test_icmp_ratelimit_tokens_accumulate_up_to_the_burst(net, family, answered, clock):
    """After 60 s of silence: 6 again, no more."""
    net["router"].pin({RATELIMIT[family]: 1000, **DEFAULT_MASKS})
    first = answered(10)
    clock.sleep(60)

    assert (first, answered(10)) == (BURST, BURST)


def test_without_a_limit_each_probe_is_answered(net, family, answered):
    """icmp_ratelimit=0."""
    net["router"].pin({RATELIMIT[family]: 0, "net.ipv4.icmp_ratemask": 0})

    assert answered(30) == 30


@pytest.mark.parametrize("family", [V4], ids=["ipv4"])
def test_types_outside_icmp_ratemask_are_not_limited(net, family, answered):
    """icmp_ratemask without time exceeded (type 11): all are answered, in spite of icmp_ratelimit."""
    net["router"].pin({RATELIMIT[family]: 1000, "net.ipv4.icmp_ratemask": DEFAULT_MASK & ~(1 << 11)})

    assert answered(30) == 30


def test_errors_over_loopback_are_not_limited(net, family):
    """Each datagram to a closed port gets ECONNREFUSED in spite of icmp_ratelimit (icmpv4_xrlim_allow(),
    icmpv6_xrlim_allow())."""
    client = net["client"]
    client.pin({RATELIMIT[family]: 1000, **DEFAULT_MASKS})
    for number in range(3 * BURST):
        with client.socket(family, socket.SOCK_DGRAM) as sender:
            # Below ip_local_port_range: connected to its own port, the sender would receive the datagram itself.
            sender.connect(("127.0.0.1" if family == V4 else "::1", 3000 + number))
            sender.send(b"x")
            with refused("ECONNREFUSED", "send() to a closed UDP port"):
                sender.send(b"x")


def test_errors_about_received_packets_with_own_source_address_are_not_limited(net, family):
    """The router sends with the client's address as source, which accept_local allows."""
    client, router = net.nodes("client", "router")
    client.pin({RATELIMIT[family]: 1000, **DEFAULT_MASKS})
    client.pin({"net.ipv4.conf.to-router.accept_local": 1})
    here = client.address(family)
    counter = "Icmp.InDestUnreachs" if family == V4 else "Icmp6.InDestUnreachs"
    for number in range(3 * BURST):
        segment.send_datagram(router, (here, 4000), (here, 33000 + number))

    client.await_counter(counter, 3 * BURST, within=5)


@pytest.mark.parametrize("family", [V4], ids=["ipv4"])
def test_default_icmp_ratemask_does_not_limit_echo_replies(net, family, answered):
    """6168 excludes them, and includes port unreachable."""
    net["server"].pin({RATELIMIT[family]: 1000, **DEFAULT_MASKS})

    assert answered(30, "icmp", ttl=2) == 30
    assert answered(30, "udp", ttl=2) == BURST


def test_each_destination_has_its_own_limit(net, family, clock):
    """A prober at another address still gets its 6 when the first one has had its own."""
    client, server, router = net.nodes("client", "server", "router")
    router.pin({RATELIMIT[family]: 1000, **DEFAULT_MASKS})
    # Over IPv6 the limit is per address, not per prefix.
    other = "192.0.2.99" if family == V4 else "2001:db8:1::99"
    client.add_address(other + ("/24" if family == V4 else "/64"), "router")
    counts = []
    for source in (client.address(family), other):
        before = router.counter(EXPIRED[family])
        with client.capture() as packets:
            for number in range(10):
                probe(client, "udp", source, server.address(family), 1, sport=33000 + number)
            router.await_counter(EXPIRED[family], 10, within=5, since=before)
            counts.append(len(answers(packets)))

    assert counts == [BURST, BURST]


@pytest.mark.parametrize("family", [V4], ids=["ipv4"])
def test_icmp_msgs_burst_limits_all_destinations_together(net, family, answered, clock, measure):
    """icmp_msgs_burst=20 and icmp_msgs_per_sec=20: 20 answers to anybody, on average. Each costs 0, 1 or 2, at random,
    so that nobody can use the limit to guess ports ("icmp: randomize the global rate limiter")."""
    router = net["router"]
    router.pin({RATELIMIT[family]: 0, **DEFAULT_MASKS})
    limits = {"net.ipv4.icmp_msgs_burst": 20, "net.ipv4.icmp_msgs_per_sec": 20}
    with ExitStack() as stack:
        try:
            router.pin(limits)
        except FileNotFoundError:
            # Before 6.12 the limit is not per namespace but global.
            for name, value in limits.items():
                stack.enter_context(global_sysctl(name, value))
        clock.sleep(1.1)
        count = answered(70)

    # At least half, as no answer costs more than 2; twice as many occur once in 100000 runs. In between it is random.
    least, most = 10, 42
    assert least <= measure("traceroute.answers_by_the_global_limit", count, "answers", tolerance=most - least) <= most


def test_errors_to_the_hosts_own_address_are_not_limited(net, family):
    """They go over lo, which has no limit: each of 30 datagrams to a closed port gets ECONNREFUSED."""
    client = net["client"]
    client.pin({RATELIMIT[family]: 1000, **DEFAULT_MASKS})
    conn = client.socket(family, socket.SOCK_DGRAM)
    conn.connect((client.address(family), 9))

    assert [errno_of(conn.send, b"x") and so_error(conn) for _ in range(30)] == ["ECONNREFUSED"] * 30
