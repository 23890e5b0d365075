"""The network library itself: what it builds, what it leaves, and what it says when something is wrong."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

import netns
from fixtures.topologies import LAN
from netns.hosts import sysctl
from netns.hosts.actor import Actor
from netns.hosts.namespace import NetworkNamespace
from netns.libc import CLONE_NEWNET
from netns.netlink import rtnl

THREE = netns.Topology(links=(
    netns.Link("client", "router", ipv4="192.0.2.0/24", ipv6="2001:db8:1::/64"),
    netns.Link("server", "router", ipv4="198.51.100.0/24", ipv6="2001:db8:2::/64", mtu=1400),
))


def test_every_link_carries_both_families_at_once(family):
    """No address waits for duplicate address detection, and both families connect on every link."""
    with netns.build(THREE) as network:
        links = json.loads(network["router"].run(["ip", "-j", "address"]))
        assert [address for link in links for address in link["addr_info"] if address.get("tentative")] == []
        for role in ("client", "server"):
            conn, _peer = netns.tcp_pair(network["router"], network[role], family)
            assert netns.tcp_info(conn).state == "ESTABLISHED"


def test_first_packet_passes_at_once(family):
    """No end of a link drops what is sent when build() has returned: the neighbour would be asked for again a second later."""
    for _ in range(20):
        with netns.build(LAN) as network:
            for sender, receiver in itertools.permutations(network.nodes("client", "server")):
                with receiver.socket(family, socket.SOCK_DGRAM) as end, sender.socket(family, socket.SOCK_DGRAM) as begin:
                    end.bind((receiver.address(family), 0))
                    end.settimeout(0.5)
                    begin.sendto(b"first", end.getsockname()[:2])
                    assert end.recv(16) == b"first"


def test_topology_is_drawn_with_roles_addresses_and_mtu():
    assert str(THREE).splitlines()[1] == (
        "server (198.51.100.1/24, 2001:db8:2::1/64) ----[ mtu 1400 ]---- router (198.51.100.2/24, 2001:db8:2::2/64)"
    )


def test_a_killed_process_leaves_no_namespace():
    """A cable between us and a host of the child disappears: the host is gone, and so is all that was in it."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    with NetworkNamespace() as ours:
        try:
            descriptor = int(child.stdout.readline())
            theirs = os.open(f"/proc/{child.pid}/fd/{descriptor}", os.O_RDONLY)
            with ours.entered():
                subprocess.run(["ip", "link", "add", "ours", "type", "veth", "peer", "name", "theirs",
                                "netns", f"/proc/self/fd/{theirs}"], check=True, pass_fds=[theirs])
                os.close(theirs)
                assert "ours" in interfaces()
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
        with ours.entered():
            netns.eventually("interfaces of the namespace", interfaces, ["lo"], within=10)


CHILD = """
import time, netns
from fixtures.topologies import LAN
with netns.build(LAN, capture=True) as network:
    netns.tcp_pair(*network.nodes("client", "server"), 2)
    print(network["client"].namespace.descriptor, flush=True)
    time.sleep(600)
"""


def interfaces():
    return sorted(name for _index, name in socket.if_nameindex())


def test_a_thread_goes_back_to_where_it_was():
    """From a host, from one host on another, in a thread that began on a host, and in a child with a namespace of its own."""
    def there():
        return os.stat("/proc/thread-self/ns/net").st_ino

    def seen_from(where):
        before = there()
        with where.entered():
            on_host = there()
        assert there() == before != on_host
        return before, on_host

    with NetworkNamespace() as one, NetworkNamespace() as other, ThreadPoolExecutor(1) as pool:
        home, on_one = seen_from(one)
        with one.entered():
            assert seen_from(other)[0] == on_one
            assert pool.submit(seen_from, other).result()[0] == on_one
        with Actor(lambda: SimpleNamespace(seen=lambda: seen_from(one)), CLONE_NEWNET) as child:
            own, on_one_too = child.call("seen")
        assert on_one_too == on_one and own not in (home, on_one)


def test_a_namespace_made_in_advance_is_the_next_one_of_this_process_alone():
    """A child would share its parent's host."""
    def inode(namespace):
        return os.fstat(namespace.descriptor).st_ino

    held = NetworkNamespace.held
    NetworkNamespace.make_next()
    assert NetworkNamespace.held == held + 1
    with Actor(lambda: SimpleNamespace(made=lambda: inode(NetworkNamespace()))) as child:
        theirs = child.call("made")
        with NetworkNamespace() as ours, NetworkNamespace() as another:
            assert NetworkNamespace.held == held + 2
            assert len({theirs, inode(ours), inode(another)}) == 3
    assert NetworkNamespace.held == held


def test_a_namespace_made_in_advance_is_not_used_after_a_sysctl_of_all_namespaces_has_changed(monkeypatch, tmp_path):
    """It may have copied the value that the sysctl had."""
    monkeypatch.setattr(sysctl, "Path", lambda *_parts: file)
    file = tmp_path / "sysctl"
    file.write_text("1")
    NetworkNamespace.make_next()
    held = NetworkNamespace.held
    with sysctl.global_sysctl("net.core.any", 2):
        assert (file.read_text(), NetworkNamespace.held) == ("2", held - 1)


def test_kernels_refusal_names_the_message_that_it_refused():
    with NetworkNamespace() as namespace, pytest.raises(OSError) as failure:
        rtnl.request(namespace, [rtnl.loopback_up(), rtnl.link_state(99, up=True)])
    assert "No such device" in str(failure.value) and "99" in str(failure.value)


def test_failing_command_raises_with_its_standard_error():
    with netns.build(LAN) as network, pytest.raises(netns.CommandError, match="client: ip link show nosuch: .*nosuch"):
        network["client"].run(["ip", "link", "show", "nosuch"])


def test_missing_tool_is_named():
    with netns.build(LAN) as network, pytest.raises(netns.MissingFeature, match="no-such-tool is not installed"):
        network["client"].run(["no-such-tool"])


def test_sysctls_and_counters_are_the_hosts_own():
    with netns.build(LAN) as network:
        client, server = network.nodes("client", "server")
        before = client.counters()
        client.pin({"net.ipv4.tcp_keepalive_time": 123})
        netns.tcp_pair(client, server, socket.AF_INET)

        assert (client.sysctl("net.ipv4.tcp_keepalive_time"), server.sysctl("net.ipv4.tcp_keepalive_time")) == \
            ("123", "7200")
        assert client.counters().since(before)["Tcp.ActiveOpens"] == 1
        assert server.counter("Tcp.ActiveOpens") == 0


def test_eventually_says_what_it_saw_last():
    values = iter(range(1000))
    with pytest.raises(netns.ExpectationFailed, match=r"^the next number: expected 'never' within 0\.1 s, last value \d+$"):
        netns.eventually("the next number", lambda: next(values), "never", within=0.1)


def test_no_error_of_a_living_connection_is_said_with_its_state():
    with netns.build(LAN) as network:
        conn, _peer = netns.tcp_pair(*network.nodes("client", "server"), socket.AF_INET)
        with pytest.raises(netns.ExpectationFailed, match="is still open; TcpInfo.state='ESTABLISHED'"):
            netns.wait_for_error(conn, within=0.05)


@pytest.mark.parametrize("seconds, hertz, bucket", [
    (0.05, 250, 0.004), (1, 250, 0.032), (75, 250, 2.048), (7200, 250, 131.072),
    (1, 1000, 0.064), (75, 1000, 4.096), (7200, 1000, 262.144),
])
def test_timer_wheel_buckets(monkeypatch, seconds, hertz, bucket):
    """As the table in kernel/time/timer.c has them."""
    monkeypatch.setattr("netns.timer.TICK", 1 / hertz)
    assert netns.wheel_granularity(seconds) == pytest.approx(bucket)
