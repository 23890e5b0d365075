"""Carry a scenario out, and report everything that can be seen of it."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from netns.errors import MissingFeature
from netns.hosts.host import Host
from netns.hosts.pinned import pin_interfaces, pin_namespace
from netns.hosts.topology import Link, Network, Route, Topology, build
from netns.netlink import routes, rtnl
from netns.observe.footprint import footprint
from netns.observe.kmsg import KernelLog
from netns.scenario.steps import Stage
from netns.traffic.tcp import tcp_info

_FAMILY = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
_NETWORKS = (("192.0.2.0/24", "2001:db8:1::/64"), ("198.51.100.0/24", "2001:db8:2::/64"))
_MTU = 1500
_ALONE = "client"
_PINNED = {"net.ipv4.ping_group_range": "0 2147483647"}     # ping sockets for everyone: icmp(7)
# Of TCP_INFO, what does not tell how fast the machine is; and the path MTU of any connected socket.
TCP_INFO = ("state", "ca_state", "retransmits", "probes", "backoff", "options", "snd_wscale", "rcv_wscale", "snd_mss", "rcv_mss",
            "unacked", "sacked", "lost", "retrans", "pmtu", "rcv_ssthresh", "snd_ssthresh", "snd_cwnd", "advmss", "reordering",
            "rcv_space", "total_retrans", "mtu")
_IP_MTU, _IPV6_MTU = 14, 24
# Steps without which the main table stays as it was: to list it takes a tenth of a scenario's time.
_ROUTING = {"route", "address", "link"}


def observe(scenario: dict, log: KernelLog | None = None) -> dict:
    """Carry out a scenario of explore.language in new namespaces; they are removed afterwards.

    Returns what was seen, as data: "steps", for each its result and when it returned (seconds since the first step); "events" of epoll;
    "sockets" and "routes" that are left, these if a step may change them; the "hosts" with their footprints (netns.observe.footprint); and
    the "log". A feature that the kernel lacks is an ordinary result.
    """
    family = _FAMILY[scenario["family"]]
    if log:
        log.skip()
    with _built(scenario["hosts"], tuple(scenario.get("mtus", ()))) as network:
        for host in network.hosts.values():
            host.pin(_PINNED)
        stage = Stage(network, family)
        try:
            steps, done = [], {step["do"] for step in scenario["steps"]}
            for step in scenario["steps"]:
                result = stage.carry_out(step)
                steps.append([result, round(stage.now(), 6)])
                stage.watch(0)
            return {
                "steps": steps, "events": [[each.socket, each.events, round(each.at, 6)] for each in stage.events],
                "sockets": {name: _left(host, sock, family) for name, (host, sock) in stage.sockets.items() if sock.fileno() >= 0},
                "routes": {role: _routes(host, family) for role, host in network.hosts.items()} if _ROUTING & done else {},
                "hosts": {role: footprint(host) for role, host in network.hosts.items()},
                "log": [record.text for record in log.records()] if log else [],
            }
        finally:
            stage.close()


@contextmanager
def _built(hosts: int, mtus: tuple[int, ...]) -> Iterator[Network]:
    if hosts > 1:
        with build(topology(hosts, mtus), capture=True) as network:
            yield network
        return
    with ExitStack() as stack:
        host = stack.enter_context(Host(_ALONE))
        pin_namespace(host)
        stack.enter_context(host.recording())
        pin_interfaces(host)
        rtnl.request(host.namespace, [rtnl.loopback_up()])
        yield Network(Topology(()), {_ALONE: host})


@cache
def topology(hosts: int, mtus: tuple[int, ...]) -> Topology:
    """Two hosts on a link, or with a router between them; `mtus` in bytes, of the links from the client on."""
    roles = ("client", "server") if hosts == 2 else ("client", "router", "server")
    links = tuple(Link(near, far, *networks, mtu=mtu) for near, far, networks, mtu in
                  zip(roles, roles[1:], _NETWORKS, mtus or (_MTU, _MTU)))
    return Topology(links) if hosts == 2 else Topology(links, (Route("client", "router"), Route("server", "router")), ("router",))


def _left(host: Host, sock: socket.socket, family: int) -> dict:
    """What the kernel says of a socket that is still open."""
    found = {"connected": _outcome(sock.getpeername)}
    if sock.type == socket.SOCK_STREAM:
        info = tcp_info(sock)
        for name in TCP_INFO[:-1]:
            try:
                found[name] = getattr(info, name)
            except MissingFeature:
                continue
    level, number = (socket.IPPROTO_IP, _IP_MTU) if family == socket.AF_INET else (socket.IPPROTO_IPV6, _IPV6_MTU)
    found["mtu"] = _outcome(lambda: sock.getsockopt(level, number))
    return found


def _outcome(ask) -> object:
    try:
        value = ask()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return value if isinstance(value, int) else "yes"


def _routes(host: Host, family: int) -> list[str]:
    """The routes of the main table, in words."""
    return [" ".join(f"{word} {value}" for word, value in sorted(route.items())) for route in routes.shown(host.namespace, family)]
