"""What each step of a scenario does. Every call is non-blocking; a step's result is one line that is the same in each run."""

import errno
import ipaddress
import select
import socket
import struct
import time
from typing import NamedTuple

from netns import libc
from netns.errors import CommandError, MissingFeature
from netns.hosts.host import Host
from netns.hosts.topology import Network
from netns.netlink import routes, rtnl
from netns.packets import errqueue
from netns.scenario import crafted
from netns.scenario.equipment import INNER, Equipment

LACKING = "the kernel lacks this"
SPARE = {socket.AF_INET: "203.0.113.9", socket.AF_INET6: "2001:db8:ff::9"}
_NOWHERE = {socket.AF_INET: "203.0.113.77", socket.AF_INET6: "2001:db8:ff::77"}
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
# RFC 3692: for experiments.
_EXPERIMENT = 253
_SOCKETS = {"tcp": (socket.SOCK_STREAM, 0, 0), "udp": (socket.SOCK_DGRAM, 0, 0), "raw": (socket.SOCK_RAW, _EXPERIMENT, _EXPERIMENT),
            "ping": (socket.SOCK_DGRAM, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)}
_SOL, _IP, _TCP, _UDP, _IPV6 = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_IPV6
# Level and number for IPv4, and for IPv6 where they differ: linux/in.h, in6.h, tcp.h, udp.h.
_OPTIONS = {
    "TCP_NOTSENT_LOWAT": (_TCP, 25), "TCP_THIN_LINEAR_TIMEOUTS": (_TCP, 16), "TCP_INQ": (_TCP, 36), "TCP_FASTOPEN": (_TCP, 23),
    "TCP_USER_TIMEOUT": (_TCP, 18), "SO_MARK": (_SOL, 36), "SO_PRIORITY": (_SOL, 12), "UDP_SEGMENT": (_UDP, 103), "UDP_GRO": (_UDP, 104),
    "UDP_CORK": (_UDP, 1), "IP_TTL": (_IP, 2), "IP_TOS": (_IP, 1), "IP_RECVERR": (_IP, 11), "IP_MTU_DISCOVER": (_IP, 10),
    "IP_FREEBIND": (_IP, 15), "IP_TRANSPARENT": (_IP, 19), "IP_BIND_ADDRESS_NO_PORT": (_IP, 24),
}
_OPTIONS_6 = {"IP_TTL": (_IPV6, 16), "IP_TOS": (_IPV6, 67), "IP_RECVERR": (_IPV6, 25), "IP_MTU_DISCOVER": (_IPV6, 23),
              "IP_FREEBIND": (_IPV6, 78), "IP_TRANSPARENT": (_IPV6, 75)}
_SHUT = {"read": socket.SHUT_RD, "write": socket.SHUT_WR, "both": socket.SHUT_RDWR}
_EVENTS = {"IN": 0x1, "PRI": 0x2, "OUT": 0x4, "ERR": 0x8, "HUP": 0x10, "RDHUP": 0x2000}
_WATCHED = 0x1 | 0x2 | 0x4 | 0x2000
_MOST_ERRORS = 4
_DRAINED = 900.0                            # seconds after which the hosts' packets are taken out of their rings


class EpollEvent(NamedTuple):
    """What epoll(7) reported of a socket, in seconds since the first step."""

    socket: str
    events: str
    at: float


class Stage(Equipment):
    """The hosts of a scenario, its sockets by name, and what has been seen of them."""

    def __init__(self, network: Network, family: int) -> None:
        self.network, self.family = network, family
        self.sockets: dict[str, tuple[Host, socket.socket]] = {}
        self.kinds: dict[str, str] = {}
        self.events: list[EpollEvent] = []
        self._chains = 0
        self.tunnels, self.tracked, self.far_ends = 0, False, {}
        self._epoll = select.epoll()
        self._names: dict[int, str] = {}
        self.first = {role: self._recorded(host) for role, host in network.hosts.items()}       # its first packet here
        self.began = time.monotonic()

    def close(self) -> None:
        self._epoll.close()

    @staticmethod
    def _recorded(host: Host) -> int:
        host.ring.drain()
        return len(host.ring.frames)

    def now(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self.began

    def carry_out(self, step: dict) -> str:
        """Do one step; returns its result in words: a number, what there is to see, or an errno."""
        words = {key: value for key, value in step.items() if key != "do"}
        try:
            return getattr(self, f"do_{step['do']}")(**words)
        except MissingFeature:
            return LACKING
        except CommandError as error:
            return f"refused: {str(error).rpartition('Error: ')[2].partition(chr(10))[0][:80]}"
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error.errno))

    def watch(self, seconds: float) -> None:
        """Let time pass, and note what epoll reports meanwhile."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            for descriptor, bits in self._epoll.poll(min(max(left, 0), _DRAINED)):
                self.events.append(EpollEvent(self._names[descriptor], _named(bits), self.now()))
            if left <= 0:
                return
            if seconds > _DRAINED:
                for host in self.network.hosts.values():
                    host.ring.drain()

    def address(self, name: str, host: Host) -> str:
        """The address that this name means on this host: of a neighbour the one on the link to it."""
        for table, word in ((SPARE, "spare"), (_NOWHERE, "nowhere"), (_LOOPBACK, "loopback"), (_ANY, "any")):
            if name == word:
                return table[self.family]
        if name == "tunnel":
            return self.far_ends.get(host.role, INNER[self.family][1])
        named = self.network[name]
        if not named.interfaces:
            return _LOOPBACK[self.family]
        return named.address(self.family, host.role if host.role in named.interfaces else None)

    def do_sysctl(self, host: str, name: str, value: int) -> str:
        return self.network[host].sysctl(name, value)

    def do_address(self, host: str, address: str, operation: str) -> str:
        length = 32 if self.family == socket.AF_INET else 128
        where = f"{self.address(address, self.network[host])}/{length}"
        return self._request(host, routes.address(rtnl.LOOPBACK, where, delete=operation == "delete"))

    def do_route(self, host: str, operation: str, to: str, via: str = "", **words: object) -> str:
        at = self.network[host]
        if to == "default":
            prefix = "0.0.0.0/0" if self.family == socket.AF_INET else "::/0"
        else:
            prefix = f"{self.address(to, at)}/{32 if self.family == socket.AF_INET else 128}"
        if via:
            words["via"] = self.address(via, at)
            if via in at.interfaces:
                words["dev"] = at.interfaces[via].index
        elif words["type"] == "unicast" and at.interfaces and operation != "delete":
            words["dev"] = next(iter(at.interfaces.values())).index
        return self._request(host, routes.route(operation, prefix, **words))

    def do_rule(self, host: str, operation: str, action: str, priority: int, table: int = 0, mark: int = 0, **prefixes: str) -> str:
        length = 32 if self.family == socket.AF_INET else 128
        words = {{"from": "from_"}.get(word, word): f"{self.address(name, self.network[host])}/{length}" for word, name in prefixes.items()}
        words |= ({"fwmark": mark} if mark else {}) | ({"table": table or 254} if action == "table" else {})
        return self._request(host, routes.rule(self.family, action, operation == "delete", priority=priority, **words))

    def _request(self, host: str, message: bytes) -> str:
        [number] = routes.outcomes(self.network[host].namespace, [message])
        return errno.errorcode.get(number, str(number)) if number else "done"

    def do_firewall(self, host: str, hook: str, match: str, verdict: str) -> str:
        icmp = "icmp" if self.family == socket.AF_INET else "icmpv6"
        flags = {"syn": "== syn", "synack": "== syn | ack", "ack": "== ack", "rst": "& rst == rst", "fin": "& fin == fin"}
        # Neighbour discovery goes on.
        matched = {"all": "meta l4proto != icmpv6" if self.family == socket.AF_INET6 else "", "tcp": "meta l4proto tcp",
                   "udp": "meta l4proto udp", "icmp": f"{icmp} type echo-request"}
        expression = matched.get(match) if match in matched else f"tcp flags {flags[match]}"
        action = {"drop": "drop", "reject": "reject", "reset": "reject with tcp reset"}[verdict]
        if verdict == "reset" and match in ("all", "udp", "icmp"):
            expression = f"{expression} meta l4proto tcp"
        self._chains += 1
        family = "ip" if self.family == socket.AF_INET else "ip6"
        self.network[host].nft(f"add table {family} scenario\n"
                               f"add chain {family} scenario c{self._chains} {{ type filter hook {hook} priority {self._chains}; }}\n"
                               f"add rule {family} scenario c{self._chains} {expression} counter {action}")
        return "done"

    def do_flush(self, host: str) -> str:
        """Remove all firewall rules of the host."""
        self.network[host].nft("flush ruleset")
        return "done"

    def do_link(self, host: str, peer: str, up: bool) -> str:
        rtnl.request(self.network[host].namespace, [rtnl.link_state(self.network[host].interfaces[peer].index, up=up)])
        return "done"

    def do_socket(self, host: str, name: str, kind: str) -> str:
        form, protocol, protocol_6 = _SOCKETS[kind]
        made = self.network[host].socket(self.family, form, protocol if self.family == socket.AF_INET else protocol_6)
        self._add(name, kind, self.network[host], made)
        return "made"

    def _add(self, name: str, kind: str, host: Host, made: socket.socket) -> None:
        made.setblocking(False)
        self.sockets[name], self.kinds[name] = (host, made), kind
        self._names[made.fileno()] = name
        self._epoll.register(made, _WATCHED | select.EPOLLET)

    def do_option(self, socket: str, option: str, value: int) -> str:
        sock = self._socket(socket)
        if option == "SO_LINGER":
            given = struct.pack("=ii", value >= 0, max(value, 0))
            sock.setsockopt(_SOL, 13, given)
            return "done"
        level, number = self._option(option)
        sock.setsockopt(level, number, value)
        return str(sock.getsockopt(level, number))

    def _option(self, name: str) -> tuple[int, int]:
        if self.family == socket.AF_INET6 and name in _OPTIONS_6:
            return _OPTIONS_6[name]
        return _OPTIONS[name] if name in _OPTIONS else (_SOL if name.startswith("SO_") else _TCP, getattr(socket, name))

    def do_bind(self, socket: str, address: str, port: int) -> str:
        host, sock = self._held(socket)
        sock.bind((self.address(address, host), port))
        return "done"

    def do_connect(self, socket: str, address: str, port: int) -> str:
        host, sock = self._held(socket)
        sock.connect((self.address(address, host), port))
        return "done"

    def do_disconnect(self, socket: str) -> str:
        """connect(2) with AF_UNSPEC."""
        libc.disconnect(self._socket(socket).fileno())
        return "done"

    def do_listen(self, socket: str, backlog: int) -> str:
        self._socket(socket).listen(backlog)
        return "done"

    def do_accept(self, socket: str, name: str) -> str:
        host, sock = self._held(socket)
        made, peer = sock.accept()
        host.adopt(made)
        self._add(name, "tcp", host, made)
        return f"from {self._role(peer[0])}"

    def do_send(self, socket: str, size: int, address: str = "", port: int = 0, flags: str = "") -> str:
        host, sock = self._held(socket)
        data = bytes(size)
        if self.kinds[socket] == "ping":
            data = bytes([8 if self.family == _AF_INET else 128]) + bytes(7) + data
        bits = _flag(flags)
        if not address:
            return f"{sock.send(data, bits)} bytes"
        return f"{sock.sendto(data, bits, (self.address(address, host), port if self.kinds[socket] in ('udp', 'tcp') else 0))} bytes"

    def do_receive(self, socket: str, size: int, flags: str = "") -> str:
        sock = self._socket(socket)
        data, _ancillary, bits, peer = sock.recvmsg(size, 0, _flag(flags))
        words = [f"{len(data)} bytes"]
        if peer and self.kinds[socket] != "tcp":
            words.append(f"from {self._role(peer[0])}")
        return " ".join(words + [name for name in ("MSG_TRUNC", "MSG_OOB", "MSG_CTRUNC", "MSG_ERRQUEUE") if bits & _flag(name)])

    def do_shutdown(self, socket: str, how: str) -> str:
        self._socket(socket).shutdown(_SHUT[how])
        return "done"

    def do_close(self, socket: str) -> str:
        sock = self._socket(socket)
        self._epoll.unregister(sock)
        del self._names[sock.fileno()]
        sock.close()
        return "done"

    def do_poll(self, socket: str) -> str:
        poll = select.poll()
        poll.register(self._socket(socket), _WATCHED)
        return next((_named(bits) for _descriptor, bits in poll.poll(0)), "nothing")

    def do_errors(self, socket: str) -> str:
        """SO_ERROR, and the error queue."""
        sock = self._socket(socket)
        number = sock.getsockopt(_SOL, 4)
        words = [errno.errorcode.get(number, "none")]
        while len(words) <= _MOST_ERRORS and (queued := errqueue.pending(sock)):
            words.append(f"{errno.errorcode.get(queued.errno, queued.errno)} by {queued.origin.name} {queued.kind}/{queued.code} "
                         f"info {queued.info} from {self._role(queued.offender) if queued.offender else 'nobody'}")
        return ", ".join(words)

    def do_segment(self, socket: str, **fields: object) -> str:
        host, sock = self._held(socket)
        seen = crafted.flow(host, sock)
        if seen is None:
            return "it has sent nothing"
        crafted.send_segment(self._peer(host, seen.remote[0]), seen, **fields)
        return "sent"

    def do_icmp(self, socket: str, error: str, **fields: int) -> str:
        host, sock = self._held(socket)
        seen = crafted.flow(host, sock)
        if seen is None:
            return "it has sent nothing"
        sender = next(iter(host.interfaces), host.role)
        crafted.send_icmp(self.network[sender], seen, error, **fields)
        return "sent"

    def do_wait(self, seconds: float) -> str:
        self.watch(seconds)
        return "done"

    def _peer(self, host: Host, address: str) -> Host:
        """The host that has this address; else a neighbour."""
        if ipaddress.ip_address(address).is_loopback:
            return host
        roles = self.network.names()
        return self.network[roles.get(address, next(iter(host.interfaces), host.role))]

    def _role(self, address: str) -> str:
        known = self.network.names() | {table[self.family]: word for table, word in
                                        ((SPARE, "spare"), (_NOWHERE, "nowhere"), (_LOOPBACK, "loopback"), (_ANY, "any"))}
        return known.get(address, "another address")

    def _held(self, name: str) -> tuple[Host, socket.socket]:
        """The host and the socket of this name. Raises OSError, EBADF, where it was closed, or an accept() gave none."""
        host, sock = self.sockets.get(name, (None, None))
        if sock is None or sock.fileno() < 0:
            raise OSError(errno.EBADF, "no socket")
        return host, sock

    def _socket(self, name: str) -> socket.socket:
        return self._held(name)[1]


_AF_INET = socket.AF_INET


def _named(bits: int) -> str:
    return " ".join(name for name, bit in _EVENTS.items() if bits & bit) or "nothing"


def _flag(name: str) -> int:
    """The number of a flag of send(2) and recv(2)."""
    return getattr(socket, name) if name else 0

