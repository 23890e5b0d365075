"""A firewall that rejects packets with every ICMP error it knows, each on its own port: nft(8),
iptables-extensions(8)."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netns.errors import CommandError, missing_feature
from netns.hosts.host import Host

_TABLE = "inet kdrift-reject"
_FIRST_PORT = 7000


@dataclass(frozen=True)
class Rejection:
    """An ICMP error: type, code, and its names in nft and iptables."""

    kind: int
    code: int
    nft: str
    iptables: str


REJECTIONS = {
    socket.AF_INET: (
        Rejection(3, 0, "net-unreachable", "icmp-net-unreachable"),
        Rejection(3, 1, "host-unreachable", "icmp-host-unreachable"),
        Rejection(3, 2, "prot-unreachable", "icmp-proto-unreachable"),
        Rejection(3, 3, "port-unreachable", "icmp-port-unreachable"),
        Rejection(3, 9, "net-prohibited", "icmp-net-prohibited"),
        Rejection(3, 10, "host-prohibited", "icmp-host-prohibited"),
        Rejection(3, 13, "admin-prohibited", "icmp-admin-prohibited"),
    ),
    socket.AF_INET6: (
        Rejection(1, 0, "no-route", "icmp6-no-route"),
        Rejection(1, 1, "admin-prohibited", "icmp6-adm-prohibited"),
        Rejection(1, 3, "addr-unreachable", "icmp6-addr-unreachable"),
        Rejection(1, 4, "port-unreachable", "icmp6-port-unreachable"),
        Rejection(1, 5, "policy-fail", "icmp6-policy-fail"),
        Rejection(1, 6, "reject-route", "icmp6-reject-route"),
    ),
}


@contextmanager
def rejecting(
    host: Host, family: socket.AddressFamily, protocol: str, flavour: str, hook: str
) -> Iterator[dict[int, Rejection]]:
    """Reject packets of "tcp" or "udp" in the hook "input", "forward" or "output": destination port -> answer.

    `flavour` is one of firewall.FLAVOURS. Raises MissingFeature.
    """
    ports = {_FIRST_PORT + number: answer for number, answer in enumerate(REJECTIONS[family])}
    icmp = "icmp" if family == socket.AF_INET else "icmpv6"
    with _rules(host, family, flavour, hook, {
        f"{protocol} dport {port} reject with {icmp} type {answer.nft}":
        ["-p", protocol, "--dport", str(port), "-j", "REJECT", "--reject-with", answer.iptables]
        for port, answer in ports.items()
    }):
        yield ports


def rejecting_protocol(host: Host, family: socket.AddressFamily, protocol: int):
    """Reject forwarded packets of this IP protocol with nftables; otherwise like rejecting()."""
    icmp = "icmp" if family == socket.AF_INET else "icmpv6"
    return _rules(host, family, "nft", "forward", {f"meta l4proto {protocol} reject with {icmp} type port-unreachable": []})


def resetting(host: Host, family: socket.AddressFamily, port: int, flavour: str, hook: str):
    """Answer TCP segments for the port with RST; otherwise like rejecting()."""
    return _rules(host, family, flavour, hook, {
        f"tcp dport {port} reject with tcp reset":
        ["-p", "tcp", "--dport", str(port), "-j", "REJECT", "--reject-with", "tcp-reset"]
    })


@contextmanager
def _rules(
    host: Host, family: socket.AddressFamily, flavour: str, hook: str, rules: dict[str, list[str]]
) -> Iterator[None]:
    """The rules, in nft syntax or as iptables arguments, removed after the block."""
    tool = flavour if family == socket.AF_INET else flavour.replace("iptables", "ip6tables")
    version = "ipv4" if family == socket.AF_INET else "ipv6"
    try:
        if flavour == "nft":
            chain = f"add chain {_TABLE} refuse {{ type filter hook {hook} priority 0; }}"
            lines = [f"add rule {_TABLE} refuse meta nfproto {version} {rule}" for rule in rules]
            host.nft("\n".join([f"add table {_TABLE}", chain, *lines]))
        else:
            lines = [f"-A {hook.upper()} {' '.join(arguments)}" for arguments in rules.values()]
            host.run([f"{tool}-restore", "-w", "--noflush"], stdin="\n".join(["*filter", *lines, "COMMIT"]) + "\n")
    except CommandError as error:
        raise missing_feature(f"{flavour} does not support these reject rules", error) from error
    try:
        yield
    finally:
        if flavour == "nft":
            host.nft(f"delete table {_TABLE}")
        else:
            host.run([tool, "-w", "-F", hook.upper()])
