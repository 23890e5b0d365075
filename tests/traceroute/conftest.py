"""Shared by the traceroute tests: pinned sysctls, and helpers for probes and their answers."""

import socket

import pytest

from fixtures.topologies import SERVICE
from netns import Host, Network, missing_feature
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.packets.probe import Answer, answers, probe

# No rate limit for ICMP errors, unless a test sets one.
PINNED = {
    **NO_ICMP_LIMITS,
    "net.ipv4.icmp_errors_use_inbound_ifaddr": 0,
    "net.ipv4.ip_no_pmtu_disc": 0,
    "net.ipv4.ip_forward_use_pmtu": 0,
    "net.ipv4.tcp_syn_retries": 6,
    "net.ipv4.fib_multipath_hash_policy": 0,
    "net.ipv6.fib_multipath_hash_policy": 0,
    "net.ipv6.auto_flowlabels": 0,
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.default.send_redirects": 0,
}


@pytest.fixture(autouse=True)
def pinned(net: Network) -> None:
    for host in net.hosts.values():
        host.pin(PINNED)
        host.pin({f"net.ipv4.conf.{interface.name}.send_redirects": 0 for interface in host.interfaces.values()})


class Tracer:
    """Probes from the client, and their answers."""

    def __init__(self, client: Host, family: socket.AddressFamily) -> None:
        self._client = client
        self._source = client.address(family)

    def probe(self, kind: str, destination: str, ttl: int, **words: int) -> tuple[bytes, Answer]:
        """The probe without its IP header, and the answer; `words` as in netns.packets.probe. Raises ExpectationFailed."""
        with self._client.capture() as packets:
            sent = probe(self._client, kind, self._source, destination, ttl, **words)
            packets.until("a response to the probe", answers, within=5)
        answer = answers(packets).only()
        return sent, answer

    def unanswered(self, kind: str, destination: str, ttl: int, then: int = 30, **words: int) -> bool:
        """Whether a probe gets no answer before a later ICMP probe with TTL `then` gets one."""
        with self._client.capture() as packets:
            probe(self._client, kind, self._source, destination, ttl, **words)
            probe(self._client, "icmp", self._source, destination, then, sport=_LATER)
            packets.until("a response to the later probe", lambda seen: any(map(_is_later, answers(seen))), within=5)
            return all(map(_is_later, answers(packets)))


# The identifier of the later ICMP probe; it is in the answer or in the quoted packet.
_LATER = 65000


def _is_later(answer: Answer) -> bool:
    return _LATER.to_bytes(2, "big") in (answer.quoted[24:26], answer.quoted[44:46], answer.identifier)


@pytest.fixture
def tracer(net: Network, family: socket.AddressFamily) -> Tracer:
    return Tracer(net["client"], family)


class Fork:
    """The topology FORK: `service` is an address of the server, reached through either of two routers."""

    def __init__(self, net: Network, family: socket.AddressFamily) -> None:
        self._fork, self._client, server = net.nodes("fork", "client", "server")
        self._ip = "ipv4" if family == socket.AF_INET else "ipv6"
        self.service = SERVICE[family]
        server.add_address(self.service)

    def set_hash_policy(self, policy: int, fields: int | None = None) -> None:
        """Set fib_multipath_hash_policy, and for policy 3 fib_multipath_hash_fields. Raises MissingFeature."""
        try:
            self._fork.pin({f"net.{self._ip}.fib_multipath_hash_policy": policy})
        except OSError as error:
            raise missing_feature(f"the kernel does not support fib_multipath_hash_policy={policy}", error) from error
        if fields is not None:
            self._fork.pin({f"net.{self._ip}.fib_multipath_hash_fields": fields})

    def add_source_addresses(self, count: int) -> list[str]:
        """Add `count` addresses to the client."""
        address, words = ("192.0.2.{}", "/24") if self._ip == "ipv4" else ("2001:db8:1::{}", "/64 nodad")
        senders = [address.format(100 + number) for number in range(count)]
        lines = [f"address add {sender}{words} dev to-fork\n" for sender in senders]
        self._client.run(["ip", "-batch", "-"], stdin="".join(lines))
        for sender in senders:
            self._client.await_address(sender)
        return senders


@pytest.fixture
def fork(net: Network, family: socket.AddressFamily) -> Fork:
    return Fork(net, family)
