"""Probes on packets that pass a firewall: what they cost, and what they see.

A kprobe and a kretprobe record an event in tracefs; a raw tracepoint, an fexit program and a perf kprobe count in a
BPF map.
"""

import socket
import threading
import time
from pathlib import Path

import pytest

from fixtures.topologies import LAN
from netns import eventually
from netns.hosts.sysctl import global_sysctl
from netns.observe import probes

pytestmark = pytest.mark.topology(LAN)

# Each runs once per received packet and calls the firewall, nft_do_chain().
DELIVER = {socket.AF_INET: "ip_local_deliver", socket.AF_INET6: "ip6_input"}
RECEIVE = {socket.AF_INET: "udp_recvmsg", socket.AF_INET6: "udpv6_recvmsg"}
BIND = {socket.AF_INET: "inet_bind", socket.AF_INET6: "inet6_bind"}
POSSIBLE = Path("/sys/devices/system/cpu/possible")
PROBES = {
    "kprobe": lambda family: probes.kprobe(DELIVER[family]),
    "kprobe-firewall": lambda family: probes.kprobe("nft_do_chain"),
    "kretprobe": lambda family: probes.kprobe(DELIVER[family], "r"),
    "kretprobe-firewall": lambda family: probes.kprobe("nft_do_chain", "r"),
    "fexit": lambda family: probes.fexit(DELIVER[family]),
    "bpf-kprobe": lambda family: probes.bpf_kprobe(DELIVER[family]),
}
RECEIVED = {"raw-tracepoint": lambda family: probes.raw_tracepoint("netif_receive_skb")}
SOFTNET = Path("/proc/net/softnet_stat")
# Under the virtual clock every instruction takes 2 ns (-icount shift=1).
INSTRUCTION = 2e-9


def processed():
    """Packets that this machine has received, on all CPUs."""
    return sum(int(line.split()[0], 16) for line in SOFTNET.read_text().splitlines())


@pytest.mark.parametrize("kind", PROBES)
def test_probe_reports_every_packet_that_the_firewall_counts(flow, family, kind):
    """As many events as the rule has counted packets, and no misses (kprobe_profile, ring buffer overruns)."""
    with PROBES[kind](family) as probe:
        before = flow.filtered()
        flow.send(500)
        assert flow.filtered() - before == probe.events() == 500
        assert probe.missed() == 0


def test_raw_tracepoint_reports_every_received_packet(flow, family):
    """netif_receive_skb fires for each packet that __netif_receive_skb_core() counts as processed (softnet_stat)."""
    with RECEIVED["raw-tracepoint"](family) as probe:
        def unreported():
            """Packets that the machine has received minus those reported, at a moment when none comes in."""
            while True:
                before, reported, after = processed(), probe.events(), processed()
                if before == after:
                    return before - reported

        at_first = unreported()
        flow.send(500)
        assert (unreported() - at_first, probe.events() >= 500) == (0, True)


@pytest.mark.virtual_clock("counts instructions, 2 ns each on the virtual clock")
@pytest.mark.parametrize("kind", PROBES | RECEIVED)
def test_probe_adds_less_than_a_tenth_to_the_cost_of_a_packet(flow, family, kind, measure):
    """From send(2) to recv(2) a packet takes some 13,000 instructions."""
    def instructions():
        """Per packet, in the least disturbed of several short rounds."""
        return min(round_of(100) for _ in range(10))

    def round_of(count):
        began = time.monotonic()
        flow.send(count)
        return (time.monotonic() - began) / INSTRUCTION / count

    plain = instructions()
    with (PROBES | RECEIVED)[kind](family) as probe:
        probed = instructions()
        assert probe.events() >= 1000
    # A difference below a hundredth of the packet's cost is noise.
    assert 0 < measure(f"tracing.{kind}", probed - plain, "instructions", tolerance=plain / 100) < plain / 10


@pytest.mark.parametrize("kind", ["fexit", "raw-tracepoint", "bpf-kprobe"])
def test_run_cnt_equals_the_runs_that_the_program_counts(flow, family, kind):
    """bpftool shows run_cnt; kernel.bpf_stats_enabled=1 turns it on."""
    with global_sysctl("kernel.bpf_stats_enabled", 1), (PROBES | RECEIVED)[kind](family) as probe:
        flow.send(100)
        eventually("run_cnt of the program minus the runs that it counted itself", lambda: probe.runs() - probe.events(), 0, within=5)
        assert probe.events() >= 100


@pytest.mark.parametrize("kind", ["p", "r"], ids=["kprobe", "kretprobe"])
def test_set_event_pid_limits_a_probe_to_one_thread(flow, family, kind):
    """In a tracing instance (Documentation/trace/ftrace.rst): every call with this thread's ID, none with the ID 1."""
    reported = {}
    for thread in (threading.get_native_id(), 1):
        with probes.kprobe(RECEIVE[family], kind, thread=thread) as probe:
            flow.send(20)
            reported[thread] = probe.events()

    assert list(reported.values()) == [20, 0]


@pytest.mark.parametrize("kind", ["p", "r"], ids=["kprobe", "kretprobe"])
def test_enable_event_trigger_starts_a_probe_at_another_event(flow, family, kind):
    """Documentation/trace/events.rst. Here bind(2) enables the probe; calls before it are not reported."""
    with probes.kprobe(RECEIVE[family], kind, after=BIND[family]) as probe:
        flow.send(20)
        before = probe.events()
        flow.client.socket(family, socket.SOCK_DGRAM).bind((flow.client.address(family), 0))
        flow.send(20)
        assert (before, probe.events(), probe.missed()) == (0, 20, 0)


@pytest.mark.parametrize("kind", ["p", "r"], ids=["kprobe", "kretprobe"])
def test_tracefs_and_perf_both_see_every_hit_of_a_probe(flow, family, kind):
    """A tracefs recorder and a perf counter at the same time (perf_event_open(2), PERF_TYPE_TRACEPOINT)."""
    with probes.kprobe(RECEIVE[family], kind) as probe, probes.counter_of(RECEIVE[family]) as count:
        flow.send(20)
        assert (probe.events(), count()) == (20, 20)


def test_kretprobe_follows_as_many_concurrent_calls_as_documented(flow, family):
    """By default max(10, 2 * CPUs), in older kernels without preemption the number of CPUs. Calls beyond that are missed
    and counted (Documentation/trace/kprobes.rst, maxactive)."""
    processors = 1 + int(POSSIBLE.read_text().strip().rpartition("-")[2])
    usual = max(10, 2 * processors)
    with probes.kprobe(RECEIVE[family], "r") as probe:
        flow.receive_at_a_time(usual + 2)
        assert probe.events() + probe.missed() == usual + 2
        assert probe.events() in (usual, processors)


def test_kretprobe_with_maxactive_1_counts_the_calls_that_it_misses(flow, family):
    """Of three calls that sleep in the function at the same time two are missed and counted
    (Documentation/trace/kprobetrace.rst, MAXACTIVE)."""
    with probes.kprobe(RECEIVE[family], "r1") as probe:
        flow.receive_at_a_time(3)
        assert (probe.events(), probe.missed()) == (1, 2)
