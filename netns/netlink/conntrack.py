"""Connection tracking on a forwarding host. Source: conntrack(8)."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netns.errors import CommandError, missing_feature
from netns.hosts.host import Host
from netns.hosts.sysctl import missing_sysctl
from netns.named import NamedList

_TABLE = "inet kdrift-tracker"
_SYSCTL = "net.netfilter.nf_conntrack_"
_FAMILIES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}


@dataclass(frozen=True)
class Entry:
    """A TCP entry of `conntrack -L`: its state, its remaining lifetime in whole seconds, the ports of the original source
    and destination, the packets in each direction, and whether it is ASSURED."""

    state: str
    timeout: int
    ports: tuple[int, int]
    packets: tuple[int, int]
    assured: bool


class Tracker:
    """The conntrack table of one host. It changes no packet, except that it may drop invalid ones."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def entries(self, family: socket.AddressFamily) -> NamedList:
        """The TCP entries now. Expired entries are removed by this dump at the latest."""
        lines = self.listing("-p", "tcp", "-f", _FAMILIES[family])
        return NamedList(f"{_FAMILIES[family]} conntrack entries of {self.host.role}", map(_entry, lines))

    def listing(self, *options: str) -> list[str]:
        """The lines of `conntrack -L` with these options. Raises MissingFeature without nf_conntrack_netlink."""
        return self._run("-L", *options).splitlines()

    def flush(self) -> None:
        """Flush the table, as a reboot of the host would."""
        self._run("-F")

    def _run(self, *words: str) -> str:
        try:
            return self.host.run(["conntrack", *words])
        except CommandError as error:
            # Without nf_conntrack_netlink, conntrack(8) gets EINVAL for every request.
            if self.host.failure(["conntrack", "-L"]):
                raise missing_feature("the kernel has no nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)", error) from error
            raise

    def count(self) -> int:
        """Entries in memory, including expired ones, which a garbage collection worker removes from time to time."""
        return int(self.host.sysctl(_SYSCTL + "count"))

    def timeout(self, state: str) -> int:
        """The timeout in seconds of an idle entry in this state."""
        return int(self.host.sysctl(f"{_SYSCTL}tcp_timeout_{state.lower()}"))

    def pin(self, **values: object) -> None:
        """Set sysctls, named without nf_conntrack_. Raises MissingFeature if one does not exist."""
        try:
            self.host.pin({_SYSCTL + name: value for name, value in values.items()})
        except FileNotFoundError as error:
            raise missing_sysctl(str(error.filename)) from error

    def invalid(self) -> int:
        """Packets in the ct state "invalid" so far."""
        listing = json.loads(self.host.nft(f"list table {_TABLE}", json=True))
        rules = [each["rule"]["expr"] for each in listing["nftables"] if "rule" in each]
        return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)


@contextmanager
def tracking(host: Host, drop_invalid: bool = False) -> Iterator[Tracker]:
    """Within the block the host tracks the connections that it forwards and counts their packets.

    With `drop_invalid` it drops packets in the ct state "invalid". Raises MissingFeature.
    """
    rules = f"""
        add table {_TABLE}
        add chain {_TABLE} forward {{ type filter hook forward priority 0; }}
        add rule {_TABLE} forward ct state invalid counter {"drop" if drop_invalid else ""}
    """
    try:
        host.nft(rules)
    except CommandError as error:
        raise missing_feature("no connection tracking", error) from error
    tracker = Tracker(host)
    try:
        tracker.pin(acct=1)
        yield tracker
    finally:
        host.nft(f"delete table {_TABLE}")


def _entry(line: str) -> Entry:
    words = line.split()
    numbers = {name: [int(each) for each in re.findall(rf" {name}=(\d+)", line)]
               for name in ("sport", "dport", "packets")}
    return Entry(state=words[3], timeout=int(words[2]), ports=(numbers["sport"][0], numbers["dport"][0]),
                 packets=tuple(numbers["packets"]), assured="[ASSURED]" in words)
