"""The states of a neighbour, their times, and what a sender sees. Source: RFC 4861, 7.2, 7.3 and 10; arp(7); ip-sysctl.rst, neigh/*."""

import socket

import pytest

from fixtures.nat import inbox, waiting
from fixtures.neighbours import V4, entry, forget, is_unicast, set_entry, silent, solicitations, state
from fixtures.topologies import LAN
from netns import TICK, at_least, deliver, eventually, tcp_pair
from netns.attempt import refused
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(LAN)

DEVICE, PORT = "to-server", 7000
RECVERR = {V4: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}         # ip(7), ipv6(7)


class Resolving:
    """The client, a UDP socket on it that is connected to a port of the server, and the server's inbox there."""

    def __init__(self, net, family):
        self.client, self.server = net.nodes("client", "server")
        self.family, self.address = family, self.server.address(family)
        self.theirs = inbox(self.server, family, PORT)
        self.ours = self.client.socket(family, socket.SOCK_DGRAM)
        self.ours.settimeout(10)
        self.ours.connect((self.address, PORT))

    def state(self):
        return state(self.client, self.address)

    def send(self, count=1):
        for number in range(count):
            self.ours.send(b"%d" % number)

    def stale(self):
        """Make the entry STALE, as after a minute without traffic."""
        set_entry(self.client, self.address, self.server.interfaces["client"].mac, "stale", DEVICE)

    def pin(self, **values):
        """Settings of the client's interface."""
        self.client.pin({f"net.{'ipv4' if self.family == V4 else 'ipv6'}.neigh.{DEVICE}.{name}": value for name, value in values.items()})


@pytest.fixture
def sender(net, family):
    return Resolving(net, family)


def test_first_packet_asks_once_and_the_neighbour_is_reachable(sender):
    """One solicitation to all, or to the solicited-node group (RFC 826; RFC 4861, 7.2.2), and the packet goes with the answer. The
    neighbour has learnt the asker by it: it does not ask back (RFC 826, "Packet Reception"; RFC 4861, 7.2.3)."""
    with sender.client.capture() as packets, sender.server.capture() as theirs:
        sender.send()
        assert sender.theirs.recv(10) == b"0"
        sender.theirs.sendto(b"back", sender.ours.getsockname()[:2])
        assert sender.ours.recv(10) == b"back"

    asked = solicitations(packets, sender.family).only()
    group = "33:33:ff:" + ":".join(f"{byte:02x}" for byte in socket.inet_pton(sender.family, sender.address)[-3:])
    assert asked.layers.dst == ("ff:ff:ff:ff:ff:ff" if sender.family == V4 else group)
    assert list(solicitations(theirs, sender.family)) == []
    assert sender.state() == "REACHABLE"


@pytest.mark.virtual_clock("minutes pass")
def test_unused_neighbour_is_stale_after_15_to_45_s(sender, clock):
    """base_reachable_time 30 s times a random factor between 0.5 and 1.5 (RFC 4861, 6.3.2 and 10)."""
    sender.send()
    sender.theirs.recv(10)
    clock.sleep(14)
    assert sender.state() == "REACHABLE"
    clock.sleep(40)

    assert sender.state() == "STALE"


@pytest.mark.virtual_clock("takes 5 s")
def test_stale_neighbour_gets_the_packet_at_once_and_is_probed_after_5_s(sender, clock, measure):
    """DELAY for delay_first_probe_time, then one unicast probe, and the answer makes it REACHABLE (RFC 4861, 7.3.2 and 7.3.3)."""
    sender.stale()
    with sender.client.capture() as packets:
        sender.send()
        assert sender.theirs.recv(10) == b"0"
        assert sender.state() == "DELAY"
        packets.until("a probe", lambda seen: len(solicitations(seen, sender.family)), at_least(1), within=10)
        fence(sender.client, sender.server, sender.address)

    probe, first = solicitations(packets, sender.family).only(), packets.sent().which("with data", lambda each: each.protocol == "udp")[0]
    assert is_unicast(probe)
    assert 5 - TICK <= measure("neighbour.delay", probe.time - first.time, "s", 0.1) <= 5.6
    assert sender.state() == "REACHABLE"


@pytest.mark.virtual_clock("a minute passes")
def test_acknowledged_data_confirms_a_neighbour_without_a_probe(net, family, clock):
    """Progress of TCP is proof of reachability (RFC 4861, 7.3.1): a stale neighbour to which data goes and is acknowledged is not asked."""
    client, server = net.nodes("client", "server")
    conn, peer = tcp_pair(client, server, family)
    deliver(conn, peer, 10)
    set_entry(client, server.address(family), server.interfaces["client"].mac, "stale", DEVICE)
    with client.capture() as packets:
        for _ in range(5):
            deliver(conn, peer, 10)
            deliver(peer, conn, 10)
            clock.sleep(2)

    assert list(solicitations(packets, family)) == []
    assert state(client, server.address(family)) == "REACHABLE"


@pytest.mark.virtual_clock("takes 8 s")
def test_silent_neighbour_fails_after_5_s_and_three_probes(sender, clock):
    """Unicast solicitations one second apart (ucast_solicit 3, retrans_time 1 s: RFC 4861, 7.3.3); then FAILED, and the next packet begins
    anew with one to all."""
    sender.stale()
    with silent(sender.server):
        with sender.client.capture() as packets:
            sender.send()
            eventually("state of the neighbour", sender.state, "FAILED", within=12)
        probes = solicitations(packets, sender.family).exactly(3)
        assert [is_unicast(probe) for probe in probes] == [True] * 3
        assert [round(later.time - earlier.time) for earlier, later in zip(probes, probes[1:])] == [1, 1]
        with sender.client.capture() as packets:
            try:
                sender.send()
            except OSError:
                sender.send()               # the first one tells the socket of the earlier packet

        assert not is_unicast(solicitations(packets, sender.family).only())


@pytest.mark.parametrize("count", [3, 1])
def test_unknown_neighbour_is_asked_for_so_often_and_then_the_sender_is_told(sender, count):
    """mcast_solicit, 3 by default, one second apart: EHOSTUNREACH after 3 s (RFC 1122, 2.3.2.2; RFC 4861, 7.2.2)."""
    sender.pin(mcast_solicit=count)
    sender.ours.setsockopt(*RECVERR[sender.family], 1)
    with silent(sender.server), sender.client.capture() as packets:
        sender.send()
        with refused("EHOSTUNREACH", "an answer of a neighbour that cannot be resolved"):
            sender.ours.recv(10)

    asked = solicitations(packets, sender.family).exactly(count)
    assert [round(later.time - earlier.time) for earlier, later in zip(asked, asked[1:])] == [1] * (count - 1)
    assert sender.state() == "FAILED"


def test_packets_wait_for_the_answer_and_go_in_order(sender):
    """All of a burst that fits into unres_qlen_bytes (RFC 4861, 7.2.2; RFC 1122, 2.3.2.2 asks for one at least)."""
    with silent(sender.server):
        sender.send(20)
        assert (waiting([sender.theirs]), sender.state()) == ([False], "INCOMPLETE")

    assert [int(sender.theirs.recv(10)) for _ in range(20)] == list(range(20))


def test_full_queue_drops_the_oldest_packets(sender, measure):
    """unres_qlen_bytes: the newest that fit are kept (RFC 4861, 7.2.2: "the new arrival SHOULD replace the oldest entry")."""
    sender.pin(unres_qlen_bytes=8192)
    with silent(sender.server):
        sender.send(30)
    arrived = [int(sender.theirs.recv(10))]
    while arrived[-1] != 29:
        arrived.append(int(sender.theirs.recv(10)))

    measure("neighbour.queued", len(arrived), "packets")
    assert 2 <= len(arrived) < 30
    assert arrived == list(range(30 - len(arrived), 30))


@pytest.mark.virtual_clock("takes 18 s")
def test_permanent_neighbour_is_never_asked_for(sender, clock):
    """ip-neighbour(8), nud permanent: no solicitation, before or after the packets, whatever answers."""
    set_entry(sender.client, sender.address, sender.server.interfaces["client"].mac, "permanent", DEVICE)
    with silent(sender.server), sender.client.capture() as packets:
        for _ in range(3):
            sender.send()
            assert sender.theirs.recv(10) == b"0"
            clock.sleep(6)

        assert list(solicitations(packets, sender.family)) == []
    assert sender.state() == "PERMANENT"


def test_deleted_neighbour_is_resolved_again(sender):
    """ip-neighbour(8), delete: the next packet asks."""
    sender.send()
    sender.theirs.recv(10)
    forget(sender.client, sender.address, DEVICE)
    assert sender.state() in ("none", "FAILED")
    with sender.client.capture() as packets:
        sender.send()
        sender.theirs.recv(10)

    assert not is_unicast(solicitations(packets, sender.family).only())


@pytest.mark.virtual_clock("minutes pass")
def test_stale_neighbour_stays_while_the_table_is_small(sender, clock):
    """gc_thresh1, 128 by default: below it nothing is collected, however long unused (arp(7), gc_stale_time; crowbar #1068)."""
    sender.send()
    sender.theirs.recv(10)
    clock.sleep(900)

    assert sender.state() == "STALE"


@pytest.mark.parametrize("evict", [1, 0])
def test_lost_carrier_evicts_neighbours_unless_it_may_not(sender, evict):
    """arp_evict_nocarrier and ndisc_evict_nocarrier, ip-sysctl.rst: roaming keeps them with 0. A permanent entry stays in both cases."""
    client, name = sender.client, "arp_evict_nocarrier" if sender.family == V4 else "ndisc_evict_nocarrier"
    client.pin({f"net.{'ipv4' if sender.family == V4 else 'ipv6'}.conf.{DEVICE}.{name}": evict})
    fixed = "192.0.2.99" if sender.family == V4 else "2001:db8:1::99"
    set_entry(client, fixed, "00:00:5e:00:53:63", "permanent", DEVICE)
    sender.send()
    sender.theirs.recv(10)
    with sender.server.link_down("client"):
        eventually("lower state of the client's link", lambda: "NO-CARRIER" in client.run(["ip", "link", "show", DEVICE]), True, within=5)
        left = state(client, sender.address), state(client, fixed)

    assert left == ("none" if evict else "REACHABLE", "PERMANENT")


def test_link_that_goes_down_forgets_its_neighbours(sender):
    """neigh_ifdown(): resolved again when it is up."""
    sender.send()
    sender.theirs.recv(10)
    before = entry(sender.client, sender.address)["lladdr"]
    with sender.client.link_down("server"):
        left = state(sender.client, sender.address)

    assert (before, left) == (sender.server.interfaces["client"].mac, "none")
