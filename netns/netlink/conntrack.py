"""Connection tracking on a forwarding host. Source: conntrack(8), include/uapi/linux/netfilter/nfnetlink_conntrack.h."""

import errno
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST

from netns.errors import CommandError, missing_feature
from netns.hosts.host import Host
from netns.hosts.sysctl import missing_sysctl
from netns.named import NamedList
from netns.netlink.message import attribute, attributes, dumped, message, nest

_TABLE = "inet kdrift-tracker"
_SYSCTL = "net.netfilter.nf_conntrack_"
_FAMILIES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}
_NETLINK_NETFILTER, _CT_GET = 12, 0x101
_NFGENMSG = struct.Struct("=BBH")
_TUPLE_ORIG, _STATUS, _PROTOINFO, _TIMEOUT, _COUNTERS_ORIG, _COUNTERS_REPLY = 1, 3, 4, 7, 9, 10
_TUPLE_IP, _TUPLE_PROTO, _PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 1, 2, 3
_ADDRESSES = {socket.AF_INET: (1, 2), socket.AF_INET6: (3, 4)}        # CTA_IP_V4_SRC and _DST, CTA_IP_V6_SRC and _DST
_PROTOINFO_TCP, _PROTOINFO_TCP_STATE, _COUNTERS_PACKETS = 1, 1, 1
_ASSURED = 1 << 2
_NO_DUMP = "the kernel has no nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)"
# enum tcp_conntrack, as conntrack(8) names them.
_STATES = ("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2")


@dataclass(frozen=True)
class Entry:
    """A TCP entry: its state, its remaining lifetime in whole seconds, the ports of the original source
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
        self._netlink: socket.socket | None = None

    def entries(self, family: socket.AddressFamily) -> NamedList:
        """The TCP entries now. Expired entries are removed by this dump at the latest. Raises MissingFeature without
        nf_conntrack_netlink."""
        with self.host.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.send(message(_CT_GET, NLM_F_REQUEST | NLM_F_DUMP, _NFGENMSG.pack(family, 0, 0)))
            try:
                found = [dict(attributes(body, _NFGENMSG.size)) for body in dumped(netlink)]
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise missing_feature(_NO_DUMP, error) from error
                raise
        return NamedList(f"{_FAMILIES[family]} conntrack entries of {self.host.role}", (_entry(each) for each in found if _is_tcp(each)))

    def entry(self, source: tuple[str, int], destination: tuple[str, int]) -> Entry | None:
        """The entry of the TCP connection of which a segment with these addresses and ports is part; None if there is none. Much cheaper
        than entries(). Raises MissingFeature without nf_conntrack_netlink."""
        found = self._lookup(source, destination, socket.IPPROTO_TCP)
        return found and _entry(found)

    def lifetime(self, source: tuple[str, int], destination: tuple[str, int], protocol: int) -> int | None:
        """The remaining lifetime in whole seconds of the entry of such a packet of TCP, UDP or another protocol with ports there; None if
        there is none. Raises like entry()."""
        found = self._lookup(source, destination, protocol)
        return found and _number(found[_TIMEOUT])

    def _lookup(self, source: tuple[str, int], destination: tuple[str, int], protocol: int) -> dict[int, bytes] | None:
        if self._netlink is None:
            self._netlink = self.host.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
        addresses = [attribute(kind, socket.inet_pton(family, end[0])) for kind, end in zip(_ADDRESSES[family], (source, destination))]
        ports = [attribute(kind, end[1].to_bytes(2, "big")) for kind, end in ((_PROTO_SRC_PORT, source), (_PROTO_DST_PORT, destination))]
        asked = nest(_TUPLE_ORIG, nest(_TUPLE_IP, *addresses), nest(_TUPLE_PROTO, attribute(_PROTO_NUM, bytes([protocol])), *ports))
        # With an acknowledgment, which ends the answer.
        self._netlink.send(message(_CT_GET, NLM_F_REQUEST | NLM_F_ACK, _NFGENMSG.pack(family, 0, 0) + asked))
        try:
            return [dict(attributes(body, _NFGENMSG.size)) for body in dumped(self._netlink)][0]
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno == errno.EINVAL:
                raise missing_feature(_NO_DUMP, error) from error
            raise

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
                raise missing_feature(_NO_DUMP, error) from error
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


def _is_tcp(found: Mapping[int, bytes]) -> bool:
    return _protocol(found)[_PROTO_NUM][0] == socket.IPPROTO_TCP


def _protocol(found: Mapping[int, bytes]) -> dict[int, bytes]:
    """The protocol and the ports of the original direction."""
    return dict(attributes(dict(attributes(found[_TUPLE_ORIG]))[_TUPLE_PROTO]))


def _entry(found: Mapping[int, bytes]) -> Entry:
    """The entry of a message's attributes."""
    state = dict(attributes(dict(attributes(found[_PROTOINFO]))[_PROTOINFO_TCP]))[_PROTOINFO_TCP_STATE][0]
    counters = [dict(attributes(found[kind]))[_COUNTERS_PACKETS] for kind in (_COUNTERS_ORIG, _COUNTERS_REPLY) if kind in found]
    return Entry(state=_STATES[state], timeout=_number(found[_TIMEOUT]),
                 ports=tuple(_number(_protocol(found)[kind]) for kind in (_PROTO_SRC_PORT, _PROTO_DST_PORT)),
                 packets=tuple(map(_number, counters)), assured=bool(_number(found[_STATUS]) & _ASSURED))


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
