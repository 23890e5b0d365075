"""Ways to drop or reject packets, each with a counter that proves it did so."""

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from netns.errors import CommandError, MissingFeature, MissingOnHost, missing_feature
from netns.hosts.host import Host


@dataclass(frozen=True)
class Rule:
    """An active rule. `packets()` is the number of packets it has matched so far."""

    packets: Callable[[], int]


def drop(host: Host, source: str, flavour: str | None = None) -> AbstractContextManager[Rule]:
    """Within the block the host drops every incoming TCP segment from the address `source`.

    ARP and neighbour discovery still work, so the sender gets no hint. `flavour` is one of FLAVOURS, by default the first
    that the machine supports. Raises MissingFeature if the machine does not support it.
    """
    return _incoming(host, source, "drop", flavour)


def drop_resets(host: Host, source: str) -> AbstractContextManager[Rule]:
    """Like drop(), for segments with RST only. Raises MissingFeature without nftables."""
    return _nft(host, source, "drop", match="tcp flags & rst == rst")


def reject(host: Host, source: str, flavour: str | None = None) -> AbstractContextManager[Rule]:
    """Like drop(), but the host answers each segment with ICMP host unreachable (ICMPv6 address unreachable)."""
    return _incoming(host, source, "reject", flavour)


@contextmanager
def carrier_lost(client: Host, server: Host) -> Iterator[Rule]:
    """The server's end of the link is down. `packets()` counts the TCP segments that the client sent in vain."""
    with server.link_down(client.role):
        before = client.counter("Tcp.OutSegs") - server.counter("Tcp.InSegs")
        yield Rule(lambda: client.counter("Tcp.OutSegs") - server.counter("Tcp.InSegs") - before)


def drop_output(host: Host, policy: str) -> AbstractContextManager[Rule]:
    """The host drops every packet that it sends: by a rule if the chain's `policy` is "accept", by the policy if it is "drop".
    Raises MissingFeature without nftables."""
    table = "inet kdrift-silence"
    rules = [f"add rule {table} output drop"] if policy == "accept" else []
    return _nft_table(host, table, f"add chain {table} output {{ type filter hook output priority 0; policy {policy}; }}", *rules)


def count(host: Host, family: int) -> AbstractContextManager[Rule]:
    """Count every incoming packet of the address family in one nftables chain, the host's only netfilter hook unless it
    has others. Raises MissingFeature."""
    table = f"{'ip' if family == socket.AF_INET else 'ip6'} kdrift-count"
    return _nft_table(host, table, f"add chain {table} input {{ type filter hook input priority 0; }}", f"add rule {table} input counter")


def redirect(host: Host, address: str, port: int, to_port: int, unless_marked: int) -> AbstractContextManager[Rule]:
    """Redirect the host's TCP connections to `address` and `port` to its own port `to_port` (REDIRECT), except those of
    sockets with the mark `unless_marked`. Raises MissingFeature."""
    family = "ip6" if ":" in address else "ip"
    table = f"{family} kdrift-redirect"
    match = f"{family} daddr {address} tcp dport {port} meta mark != {unless_marked}"
    return _nft_table(host, table, f"add chain {table} output {{ type nat hook output priority -100; }}",
                      f"add rule {table} output {match} counter redirect to :{to_port}")


@contextmanager
def _incoming(host: Host, source: str, verdict: str, flavour: str | None) -> Iterator[Rule]:
    with ExitStack() as stack:
        if flavour is None:
            yield _any(stack, host, source, verdict)
        else:
            yield stack.enter_context(_ADD[flavour](host, source, verdict))


def _any(stack: ExitStack, host: Host, source: str, verdict: str) -> Rule:
    missing = []
    for flavour in FLAVOURS:
        try:
            return stack.enter_context(_ADD[flavour](host, source, verdict))
        except MissingFeature as error:
            missing.append(error)
    # The kernel may support one of them whose tool is missing here.
    kind = MissingOnHost if any(isinstance(error, MissingOnHost) for error in missing) else MissingFeature
    raise kind("no firewall: " + "; ".join(map(str, missing)))


def _nft(host: Host, source: str, verdict: str, match: str = "meta l4proto tcp") -> AbstractContextManager[Rule]:
    table = "inet kdrift"
    family, unreachable = (
        ("ip6", "icmpv6 type addr-unreachable") if ":" in source else ("ip", "icmp type host-unreachable")
    )
    action = f"reject with {unreachable}" if verdict == "reject" else "drop"
    return _nft_table(host, table, f"add chain {table} input {{ type filter hook input priority 0; }}",
                      f"add rule {table} input {family} saddr {source} {match} counter {action}")


@contextmanager
def _nft_table(host: Host, table: str, *lines: str) -> Iterator[Rule]:
    """An nftables table with these chains and rules, removed after the block."""
    rules = "\n".join([f"add table {table}", *lines])
    _try(lambda: host.nft(rules), lambda: host.nft("list tables"))
    try:
        yield Rule(lambda: _nft_packets(host.nft(f"list table {table}", json=True)))
    finally:
        host.nft(f"delete table {table}")


def _nft_packets(listing: str) -> int:
    rules = [entry["rule"] for entry in json.loads(listing)["nftables"] if "rule" in entry]
    return sum(part["counter"]["packets"] for rule in rules for part in rule["expr"] if "counter" in part)


@contextmanager
def _iptables(flavour: str, host: Host, source: str, verdict: str) -> Iterator[Rule]:
    tool, unreachable = (
        (flavour.replace("iptables", "ip6tables"), "icmp6-addr-unreachable") if ":" in source
        else (flavour, "icmp-host-unreachable")
    )
    action = ["REJECT", "--reject-with", unreachable] if verdict == "reject" else ["DROP"]
    rule = ["INPUT", "-p", "tcp", "-s", source, "-j", *action]
    _try(lambda: host.run([tool, "-w", "-A", *rule]), lambda: host.run([tool, "-w", "-S", "INPUT"]))
    try:
        yield Rule(lambda: _iptables_packets(host.run([tool, "-w", "-v", "-S", "INPUT"])))
    finally:
        host.run([tool, "-w", "-D", *rule])


_ADD = {
    "nft": _nft,
    "iptables-nft": partial(_iptables, "iptables-nft"),
    "iptables-legacy": partial(_iptables, "iptables-legacy"),
}
FLAVOURS = tuple(_ADD)


def _iptables_packets(listing: str) -> int:
    return sum(int(packets) for packets in re.findall(r"^-A INPUT .*-c (\d+) \d+", listing, re.MULTILINE))


def _try(command: Callable[[], object], harmless: Callable[[], object]) -> None:
    """Run the command. If even the harmless one fails, the machine lacks the feature."""
    try:
        command()
    except MissingFeature:
        raise
    except (CommandError, subprocess.TimeoutExpired):
        try:
            harmless()
        except CommandError as error:
            raise missing_feature("no firewall", error) from error
        raise
