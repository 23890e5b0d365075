"""Carry a scenario out, and report everything that can be seen of it."""

import errno
import socket

from netns.errors import MissingFeature
from netns.hosts.host import Host
from netns.hosts.topology import Network
from netns.netlink import routes
from netns.netlink.conntrack import Tracker
from netns.observe.footprint import unread
from netns.observe.kmsg import KernelLog
from netns.packets import pmtu
from netns.scenario.steps import Stage
from netns.traffic.tcp import tcp_info

_FAMILY = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
# Of TCP_INFO, what does not tell how fast the machine is; and the path MTU of any connected socket.
TCP_INFO = ("state", "ca_state", "retransmits", "probes", "backoff", "options", "snd_wscale", "rcv_wscale", "snd_mss", "rcv_mss",
            "unacked", "sacked", "lost", "retrans", "pmtu", "rcv_ssthresh", "snd_ssthresh", "snd_cwnd", "advmss", "reordering",
            "rcv_space", "total_retrans", "mtu")
# Steps without which the main table stays as it was: to list it takes a tenth of a scenario's time.
_ROUTING = {"route", "address", "link"}


def observe(scenario: dict, network: Network, log: KernelLog | None = None) -> dict:
    """Carry out a scenario of explore.language in this network of netns.scenario.ready.

    Returns what was seen, as data: "steps", for each its result and when it returned (seconds since the first step); "events" of epoll;
    "sockets", "routes" and "tracked" connections that are left, if a step may change them; the "hosts" with
    their footprints (netns.observe.footprint.unread()); and the "log". A feature that the kernel lacks is an ordinary result.
    """
    family = _FAMILY[scenario["family"]]
    if log:
        log.skip()
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
            "tracked": {role: _tracked(host, family) for role, host in network.hosts.items()} if stage.tracked else {},
            "hosts": {role: unread(host, stage.first[role]) for role, host in network.hosts.items()},
            "log": [record.text for record in log.records()] if log else [],
        }
    finally:
        stage.close()


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
    found["mtu"] = _outcome(lambda: pmtu.of_socket(sock))
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


def _tracked(host: Host, family: int) -> list[str]:
    """The TCP connections that conntrack knows, in words."""
    try:
        entries = Tracker(host).entries(family)
    except MissingFeature:
        return []
    return sorted(f"{each.state}{' assured' if each.assured else ''}" for each in entries)
