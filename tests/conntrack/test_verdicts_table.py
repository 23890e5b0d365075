"""Every verdict in every hook, for forwarded, incoming, outgoing and loopback traffic: what the client gets, and what the tracker keeps.

Source: nft(8), verdicts, reject, queue and notrack; include/uapi/linux/netfilter_ipv4.h: the tracker confirms an entry in the last hook.
"""

import json
import select
import socket

import pytest

from fixtures.icmp_errors import numbers
from fixtures.table import LeftOut, Measured, Must, OneOf, Table
from fixtures.topologies import ROUTED
from netns import eventually, missing_feature
from netns.attempt import errno_name, so_error
from netns.errors import CommandError
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.netlink import conntrack
from netns.packets import errqueue

pytestmark = pytest.mark.topology(ROUTED)

# The hooks that the first packet passes, in their order.
HOOKS = {"forwarded": ("prerouting", "forward", "postrouting"), "incoming": ("prerouting", "input"), "outgoing": ("output", "postrouting"),
         "loopback": ("output", "postrouting", "prerouting", "input")}
FILTERED_BY = {"forwarded": "router", "incoming": "server", "outgoing": "client", "loopback": "server"}
# nft's names that mean the same for both versions, with type and code: nft(8), icmpx.
REJECTS = {"reject no-route": ((3, 0), (1, 0)), "reject port-unreachable": ((3, 3), (1, 4)), "reject host-unreachable": ((3, 1), (1, 3)),
           "reject admin-prohibited": ((3, 13), (1, 1))}
VERDICTS = ("accept", "drop", *REJECTS, "reject tcp reset", "notrack", "redirect")
QUEUES = ("queue", "queue bypass")
PORTS = {verdict: 7000 + number for number, verdict in enumerate((*VERDICTS, *QUEUES))}
ELSEWHERE = 6999
KINDS = {"TCP": (socket.SOCK_STREAM, "tcp"), "UDP": (socket.SOCK_DGRAM, "udp")}
LOCAL = ("output", "postrouting")
SOURCE = "nft(8)"


def kept(traffic, hook):
    """Loopback packets have been confirmed in postrouting before they come in; others are confirmed in the last hook of all."""
    return "entry" if traffic == "loopback" and hook in ("prerouting", "input") else "no entry"


def expected(kind, traffic, hook, verdict):
    through = {"TCP": "connected", "UDP": "delivered"}[kind]
    local = traffic in ("outgoing", "loopback") and hook in LOCAL
    unanswered = f"no answer, {kept(traffic, hook)}"
    if verdict in ("accept", "queue bypass"):
        return f"{through}, entry"
    if verdict == "drop":
        return Must("EPERM, no entry", "nf_hook_slow(): send() is told of NF_DROP") if local and kind == "UDP" else unanswered
    if verdict == "queue":
        return OneOf((unanswered, "EPERM, no entry"), "nft(8): without a listener it is dropped, of which send() may be told") \
            if local and kind == "UDP" else unanswered
    if verdict.startswith("reject"):
        return rejected(kind, traffic, hook, verdict, local)
    if hook not in ("prerouting", "output"):
        return LeftOut("nft(8): notrack and redirect are for prerouting and output")
    if verdict == "notrack":
        return f"{through}, {kept(traffic, hook)}"
    if traffic == "loopback" and hook == "prerouting":
        return Measured("the connection has passed the output hook; nft(8) does not say that addresses are then settled")
    return f"{through} to the redirect, entry"


def rejected(kind, traffic, hook, verdict, local):
    reset = verdict == "reject tcp reset"
    if hook == "postrouting":
        return LeftOut("nft(8): reject is for prerouting, input, forward and output")
    if reset != (kind == "TCP"):
        return LeftOut("a reset is for TCP; ICMP errors arrive while connect() is still sending, and are told at the next SYN")
    if reset:
        return f"ECONNREFUSED, {kept(traffic, hook)}"
    return f"{'EPERM, then ' if local else ''}the errno of its type, {kept(traffic, hook)}"


ROWS = {f"{kind}, {traffic}, {hook}{', queue' if verdicts is QUEUES else ''}": (kind, traffic, hook, verdicts)
        for kind in KINDS for traffic, hooks in HOOKS.items() for hook in hooks for verdicts in (VERDICTS, QUEUES)}
TABLE = Table("conntrack.verdicts", "traffic and hook", "verdict", SOURCE,
              {row: {verdict: expected(kind, traffic, hook, verdict) for verdict in verdicts}
               for row, (kind, traffic, hook, verdicts) in ROWS.items()})


class Services:
    """A service for each verdict, where the traffic goes and where it may be redirected, and the rules in one hook."""

    def __init__(self, net, family, kind, traffic, hook, columns):
        self.family, self.kind = family, kind
        self.filter = net[FILTERED_BY[traffic]]
        self.client, self.server = net["server" if traffic == "loopback" else "client"], net["server"]
        self.target = self.server.address(family)
        self.services = {PORTS[column]: self.service(self.server, PORTS[column]) for column in columns}
        self.elsewhere = self.service(self.filter, ELSEWHERE) if "redirect" in columns else None
        try:
            self.filter.nft("\n".join(["add table inet verdicts", *self.rules(hook, columns)]))
        except CommandError as error:
            raise missing_feature("a verdict", error) from error

    def service(self, host, port):
        made = host.socket(self.family, KINDS[self.kind][0])
        made.bind(("::" if self.family == socket.AF_INET6 else "0.0.0.0", port))
        made.setblocking(False)
        if self.kind == "TCP":
            made.listen()
        return made

    def rules(self, hook, columns):
        yield f"add chain inet verdicts filter {{ type filter hook {hook} priority 0; }}"
        for column in columns:
            match = f"{KINDS[self.kind][1]} dport {PORTS[column]} counter"
            if column == "redirect":
                yield f"add chain inet verdicts nat {{ type nat hook {hook} priority -100; }}"
                yield f"add rule inet verdicts nat {match} redirect to :{ELSEWHERE}"
            elif column == "notrack":
                yield f"add chain inet verdicts raw {{ type filter hook {hook} priority -300; }}"
                yield f"add rule inet verdicts raw {match} notrack"
            else:
                yield f"add rule inet verdicts filter {match} {statement(column)}"

    def matched(self, port):
        """How many packets the rule for the port has seen."""
        listing = json.loads(self.filter.nft("list table inet verdicts", json=True))
        rules = [each["rule"]["expr"] for each in listing["nftables"] if "rule" in each]
        return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part
                   and any(each.get("match", {}).get("right") == port for each in rule))

    def attempt(self, column, names):
        """What the client gets, in words, and its address."""
        port = PORTS[column]
        sock = self.client.socket(self.family, KINDS[self.kind][0])
        errqueue.receive_errors(sock)
        sock.bind((self.client.address(self.family), 0))
        sock.setblocking(False)
        here = sock.getsockname()[:2]
        error = ""
        try:
            sock.connect((self.target, port))
            if self.kind == "UDP":
                sock.send(b"x")
        except BlockingIOError:
            pass
        except OSError as refused:
            error = errno_name(refused.errno)
        seen = self.outcome(sock, port, error, names)
        if seen == "no answer":
            eventually(f"packets for port {port} in the rule's counter", lambda: self.matched(port) > 0, within=5)
        return here, seen

    def outcome(self, sock, port, error, names):
        arrived = {self.services[port]: ""}
        if self.elsewhere is not None:
            arrived[self.elsewhere] = " to the redirect"
        poll = select.epoll()
        with poll:
            for each in arrived:
                poll.register(each, select.EPOLLIN)
            poll.register(sock, select.EPOLLERR)
            poll.poll(0.05)
        for each, where in arrived.items():
            if self.took(each):
                return f"{'connected' if self.kind == 'TCP' else 'delivered'}{where}"
        queued = errqueue.pending(sock) if self.kind == "UDP" else None
        if queued is not None:
            name = errno_name(queued.errno)
            told = "the errno of its type" if name == names else f"{name} {queued.kind}/{queued.code}"
            return f"{error}, then {told}" if error else told
        return error or so_error(sock) or "no answer"

    def took(self, service):
        try:
            if self.kind == "TCP":
                self.server.adopt(service.accept()[0])
            else:
                service.recv(10)
        except BlockingIOError:
            return False
        return True


def statement(column):
    if column in REJECTS:
        return f"reject with icmpx type {column.partition(' ')[2]}"
    return {"reject tcp reset": "reject with tcp reset", "queue": "queue num 77", "queue bypass": "queue num 77 bypass"}.get(column, column)


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_verdict_does_what_it_says_in_every_hook(net, family, row, table):
    """The client connects or is told, and an entry is kept only of a packet that passed all hooks."""
    kind, traffic, hook, _verdicts = ROWS[row]
    for host in net.hosts.values():
        host.pin(NO_ICMP_LIMITS)
    services = Services(net, family, kind, traffic, hook, TABLE.columns(row))
    with conntrack.tracking(services.filter) as tracker:
        for column in table:
            message = REJECTS.get(column, (None, None))[family == socket.AF_INET6]
            here, seen = services.attempt(column, numbers(family).get(message))
            number = socket.IPPROTO_TCP if kind == "TCP" else socket.IPPROTO_UDP
            found = tracker.lifetime(here, (services.target, PORTS[column]), number)
            table.saw(f"{seen}, {'no entry' if found is None else 'entry'}")
