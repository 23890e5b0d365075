"""The fixtures: what a failed test leaves behind, what a skipped one says, and that a measurement is kept."""

import base64
import io
import json

import pytest
from scapy.utils import RawPcapReader

from fixtures.clock import Clock

pytest_plugins = ["pytester"]

PLUGINS = [argument for name in ("options", "net", "measure", "clock", "evidence", "invariants") for argument in ("-p", f"fixtures.{name}")]


@pytest.fixture
def run(pytester):
    """Run the body of one test on a LAN in a session of its own, and return its report for the call and the output."""
    pytester.makeini("[pytest]\nmarkers =\n    topology(data): -\n    virtual_clock(reason): -\n    mass: -\n")

    def run_one(body: str, *arguments: str):
        pytester.makepyfile(HEADER + body)
        result = pytester.inline_run(*PLUGINS, "-p", "no:cacheprovider", *arguments)
        return next(each for each in result.getreports("pytest_runtest_logreport") if each.when == "call"
                    or each.outcome == "skipped")

    return run_one


HEADER = """
import socket, pytest
from fixtures.topologies import LAN
from netns import MissingFeature, tcp_pair
"""


def test_a_failure_comes_with_topology_addresses_counters_and_packets(run):
    report = run("""
@pytest.mark.topology(LAN)
def test_it(net):
    conn, _peer = tcp_pair(*net.nodes("client", "server"), socket.AF_INET)
    conn.sendall(b"hello")
    assert False
""")
    sections = dict(report.sections)
    assert "client (192.0.2.1/24" in sections["topology"]
    assert "192.0.2.0/24 dev to-server" in sections["addresses and routes of client"]
    assert "Tcp.ActiveOpens 1" in sections["counters of client, since its start"]
    assert "[PA] seq 1 ack 1 len 5" in sections["flow log"]
    pcap = dict(report.user_properties)["pcap"]
    assert any(b"hello" in packet for packet, _about in RawPcapReader(io.BytesIO(base64.b64decode(pcap["base64"]))))


def test_evidence_that_cannot_be_had_does_not_hide_the_failure(run, monkeypatch):
    report = run("""
@pytest.mark.topology(LAN)
def test_it(net, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "the failure" == 1
""")
    assert "the failure" in report.longreprtext
    assert "ip is not installed" in dict(report.sections)["addresses and routes of client"]


def test_a_passing_test_carries_measurements_only(run):
    report = run("""
@pytest.mark.topology(LAN)
def test_it(net, measure):
    assert measure("some.name", 1.5, "s", tolerance=0.1) == 1.5
""")
    assert report.sections == []
    assert json.loads(json.dumps(report.user_properties)) == [
        ["measurement", {"name": "some.name", "value": 1.5, "unit": "s", "tolerance": 0.1}]
    ]


@pytest.mark.parametrize("body, reason", [
    ("@pytest.mark.virtual_clock('a day has to pass')\ndef test_it(): pass",
     "needs the virtual clock: a day has to pass"),
    ("@pytest.mark.mass\ndef test_it(): pass", "mass test: run it with --mass"),
    ("def test_it(): raise MissingFeature('no such tool')", "no such tool"),
])
def test_a_skipped_test_says_what_it_lacks(run, monkeypatch, body, reason):
    monkeypatch.setattr("fixtures.clock.CLOCK", Clock("real"))
    report = run(body)
    assert report.skipped and report.longrepr[2] == f"Skipped: {reason}"


def test_alignment_begins_at_a_multiple_of_the_wheels_bucket(monkeypatch):
    """7200 s need 2**20 ms, whatever the tick; and the real clock does not wait for it."""
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("time.monotonic", lambda: 5000.0)
    Clock("virtual").align(7200)
    Clock("real").align(7200)
    assert slept == [pytest.approx(5 * 1048.576 - 5000.0)]


@pytest.mark.parametrize(("itself", "outcome"), [("pass", "counted wrong: server: 1 lost"), ("assert not 'its own'", "its own")])
def test_a_test_fails_where_a_host_of_its_network_has_counted_wrong(run, itself, outcome):
    """Its own failure comes first."""
    report = run(f"""
from netns.observe import accounting

@pytest.mark.topology(LAN)
def test_it(net, monkeypatch):
    monkeypatch.setattr(accounting, "faults", lambda host: ["1 lost"] * (host.role == "server"))
    {itself}
""")

    assert report.failed
    assert outcome in report.longrepr.reprcrash.message
    assert ("counted" in report.longrepr.reprcrash.message) == (itself == "pass")
