"""The timeouts of the tracker's entries, by protocol and state: nf_conntrack-sysctl.rst."""

import socket

import pytest

from fixtures.table import LeftOut, Must, OneOf, Table
from fixtures.topologies import ROUTED
from netns.netlink import conntrack
from netns.packets import segment

pytestmark = pytest.mark.topology(ROUTED)

DATA, WINDOW, PORT, SHORT = bytes(10), 60_000, 80, 2
# These two only shorten the timeout of a state.
LARGE = {"tcp_timeout_max_retrans": 40_000, "tcp_timeout_unacknowledged": 50_000, "tcp_timeout_established": 60_000}
OPEN = "S< SA> A< "
# By state: the sysctl and its documented default, and the segments that lead there: > from the server, < from the client.
STATES = {
    "SYN_SENT": ("tcp_timeout_syn_sent", 120, "S<"),
    "SYN_RECV": ("tcp_timeout_syn_recv", 60, "S< SA>"),
    "ESTABLISHED": ("tcp_timeout_established", 432000, OPEN),
    "ESTABLISHED, unacknowledged data": ("tcp_timeout_unacknowledged", 300, OPEN + "D<"),
    "ESTABLISHED, retransmissions": ("tcp_timeout_max_retrans", 300, OPEN + "D< " + "d< " * 3),
    "FIN_WAIT": ("tcp_timeout_fin_wait", 120, OPEN + "F<"),
    "CLOSE_WAIT": ("tcp_timeout_close_wait", 60, OPEN + "F< A>"),
    "LAST_ACK": ("tcp_timeout_last_ack", 30, OPEN + "F< A> F>"),
    "TIME_WAIT": ("tcp_timeout_time_wait", 120, OPEN + "F< A> F> A<"),
    "CLOSE": ("tcp_timeout_close", 10, OPEN + "R<"),
    "UDP": ("udp_timeout", 30, "u<"),
    "UDP, answered": ("udp_timeout", 30, "u< u>"),
    "UDP stream": ("udp_timeout_stream", 120, "u< u>"),
}
# What comes next in the same state. A retransmitted SYN must not renew: nf_conntrack_tcp_packet().
NEXT = {"SYN_SENT": "S<", "ESTABLISHED": "D< A>", "ESTABLISHED, unacknowledged data": "D<", "CLOSE_WAIT": "D> A<", "LAST_ACK": "F>",
        "TIME_WAIT": "A<", "UDP": "u<", "UDP stream": "u<"}
DEFAULTS = {
    "icmp_timeout": "30", "icmpv6_timeout": "30", "generic_timeout": "600", "gre_timeout": "30", "gre_timeout_stream": "180",
    "tcp_max_retrans": "3", "tcp_loose": "1", "tcp_be_liberal": "0", "tcp_ignore_invalid_rst": "0", "checksum": "1", "log_invalid": "0",
    "frag6_timeout": "60",
    "sctp_timeout_closed": "10", "sctp_timeout_shutdown_ack_sent": "3", "sctp_timeout_heartbeat_sent": "30",
}
# The documentation before and after "netfilter: conntrack: unify established states for SCTP paths".
CHANGED = {"sctp_timeout_cookie_wait": ("3",), "sctp_timeout_cookie_echoed": ("3",), "sctp_timeout_established": ("210", "432000")}
CHANGED.update({f"sctp_timeout_shutdown_{which}": ("3", "0") for which in ("sent", "recd")})
SOURCE = "nf_conntrack-sysctl.rst"


def cells(state):
    renewed = LeftOut("no segment leaves this state as it is")
    if state in NEXT:
        renewed = Must("not renewed", "nf_conntrack_tcp_packet(): a client that retries must not hold the entry") \
            if state == "SYN_SENT" else "renewed"
    if state == "UDP stream":
        return {"default": str(STATES[state][1]), "after a later packet": "as set", "ends": "ended"}
    return {"default": str(STATES[state][1]), "new": "as set", "runs": "runs", "renewal": renewed, "ends": "ended"}


TIMEOUTS = Table("conntrack.timeouts", "state", "property", SOURCE, {state: cells(state) for state in STATES})
SETTINGS = Table("conntrack.settings", "sysctl", "property", SOURCE, {
    **{name: {"default": value} for name, value in DEFAULTS.items()},
    **{name: {"default": OneOf(values, "the documentation of each kernel has its own value")} for name, values in CHANGED.items()},
})


# By kind: flags and length. A small d is the last data again.
SEGMENTS = {"S": ("S", 1), "SA": ("SA", 1), "A": ("A", 0), "D": ("PA", 10), "d": ("PA", 10), "F": ("FA", 1), "R": ("RA", 0)}


class Connection:
    """Both ends of a connection through the router, from the client's `port`."""

    def __init__(self, net, family, port):
        self.client, self.server = net.nodes("client", "server")
        self.family, self.udp = family, False
        self.ends = {"<": (self.client.address(family), port), ">": (self.server.address(family), PORT)}
        self.injectors = {"<": segment.Injector(self.client, family), ">": segment.Injector(self.server, family)}
        self.next = {"<": 1000, ">": 500_000}

    def send(self, words):
        for word in words.split():
            kind, way = word[:-1], word[-1]
            source, destination = self.ends[way], self.ends["<" if way == ">" else ">"]
            if kind == "u":
                self.udp = True
                segment.send_datagram(self.client if way == "<" else self.server, source, destination)
                continue
            flags, length = SEGMENTS[kind]
            if kind in ("d", "S") or kind == "F" and self.next[way] % 1000 == 2:
                self.next[way] = {"d": self.next[way] - 10, "S": 1000}.get(kind, self.next[way] - 1)
            ack = self.next["<" if way == ">" else ">"] if "A" in flags else 0
            self.injectors[way].send(source, destination, flags, self.next[way], ack, DATA if length == 10 else b"", WINDOW)
            self.next[way] += length

    def lifetime(self, tracker):
        return tracker.lifetime(self.ends["<"], self.ends[">"], socket.IPPROTO_UDP if self.udp else socket.IPPROTO_TCP)


@pytest.mark.table(TIMEOUTS)
@pytest.mark.parametrize("row", TIMEOUTS.rows)
def test_entry_has_the_timeout_of_its_state(net, family, clock, row, table):
    """The default; the value that is set; it runs, is renewed by each packet that belongs there, and ends the entry."""
    name, _default, words = STATES[row]
    for host in net.hosts.values():
        host.nft("add table inet silence\nadd chain inet silence in { type filter hook input priority 0; }\n"
                 "add rule inet silence in meta l4proto { tcp, udp } drop")
    with conntrack.tracking(net["router"]) as tracker:
        seen = {"default": net["router"].sysctl(f"net.netfilter.nf_conntrack_{name}")}
        every = sorted({each for each, _value, _words in STATES.values()})
        tracker.pin(**dict.fromkeys(every, SHORT))
        ending, kept, renewed = (Connection(net, family, 40000 + number) for number in range(3))
        ending.send(words)
        present = ending.lifetime(tracker) is not None
        values = {each: LARGE.get(each, 1000 * (1 + number)) for number, each in enumerate(every)}
        tracker.pin(**values)
        value = values[name]
        for connection in (kept, renewed):
            connection.send(words)
        seen["new"] = judged(kept.lifetime(tracker), value, "as set")
        clock.sleep(SHORT + 1)
        seen["ends"] = "ended" if present and ending.lifetime(tracker) is None else f"{present}, {ending.lifetime(tracker)} s"
        seen["runs"] = judged(kept.lifetime(tracker), value - SHORT - 1, "runs")
        renewed.send(NEXT.get(row, ""))
        seen["renewal"] = judged(renewed.lifetime(tracker), value, "renewed", value - SHORT - 1, "not renewed")
        seen["after a later packet"] = judged(renewed.lifetime(tracker), value, "as set")
        for column in table:
            table.saw(seen[column])


def judged(lifetime, value, word, other=None, otherwise=""):
    """The word if so many seconds are left, or one less since the kernel counts whole ones; else `otherwise` if `other` are left."""
    if lifetime in (value, value - 1):
        return word
    return otherwise if other is not None and lifetime in (other, other - 1) else f"{lifetime} s of {value}"


@pytest.mark.table(SETTINGS)
@pytest.mark.parametrize("row", SETTINGS.rows)
def test_tracker_starts_with_documented_settings(net, row, table):
    """A new network namespace has the kernel's own."""
    with conntrack.tracking(net["router"]):
        for _column in table:
            table.saw(net["router"].sysctl(f"net.netfilter.nf_conntrack_{row}"))
