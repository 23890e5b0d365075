"""The language of scenarios: what a topology and each step may say, as data that is checked before it runs.

A scenario is JSON: hosts in a row, and the steps that happen there one after the other. netns.scenario carries it out in a guest.
"""
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

VERSION = 1
Scenario = dict[str, Any]
Step = dict[str, Any]

HOSTS = (("client",), ("client", "server"), ("client", "router", "server"))       # by number; neighbours are linked, a router forwards
FAMILIES = ("ipv4", "ipv6")
KINDS = ("tcp", "udp", "ping", "raw")
# Names of addresses: a host's own, some that no host has at first, and the one at the other end of a host's last tunnel.
ADDRESSES = ("client", "router", "server", "loopback", "any", "spare", "nowhere", "tunnel")
PORTS = (0, 80, 81, 5000)
MOST_STEPS = 60
DAY = 86400
# Per namespace, with the values that may be written; Documentation/networking/ip-sysctl.rst.
SYSCTLS: Mapping[str, Sequence[int]] = {
    "net.ipv4.ip_default_ttl": (1, 64, 255), "net.ipv4.ip_forward": (0, 1), "net.ipv4.ip_no_pmtu_disc": (0, 1, 2, 3),
    "net.ipv4.ip_nonlocal_bind": (0, 1), "net.ipv4.icmp_echo_ignore_all": (0, 1), "net.ipv4.icmp_ratelimit": (0, 1000),
    "net.ipv4.icmp_errors_use_inbound_ifaddr": (0, 1), "net.ipv4.conf.all.rp_filter": (0, 1, 2), "net.ipv4.tcp_ecn": (0, 1, 2),
    "net.ipv4.tcp_fin_timeout": (1, 10, 60, 300), "net.ipv4.tcp_keepalive_time": (1, 60, 7200), "net.ipv4.tcp_keepalive_intvl": (1, 75),
    "net.ipv4.tcp_keepalive_probes": (1, 3, 9), "net.ipv4.tcp_orphan_retries": (0, 1, 3), "net.ipv4.tcp_retries1": (1, 3, 8),
    "net.ipv4.tcp_retries2": (1, 3, 8, 15), "net.ipv4.tcp_syn_retries": (1, 2, 4, 6), "net.ipv4.tcp_synack_retries": (0, 1, 3, 5),
    "net.ipv4.tcp_syncookies": (0, 1, 2), "net.ipv4.tcp_sack": (0, 1), "net.ipv4.tcp_dsack": (0, 1), "net.ipv4.tcp_timestamps": (0, 1, 2),
    "net.ipv4.tcp_window_scaling": (0, 1), "net.ipv4.tcp_tw_reuse": (0, 1, 2), "net.ipv4.tcp_rfc1337": (0, 1),
    "net.ipv4.tcp_abort_on_overflow": (0, 1), "net.ipv4.tcp_mtu_probing": (0, 1, 2), "net.ipv4.tcp_base_mss": (512, 1024),
    "net.ipv4.tcp_slow_start_after_idle": (0, 1), "net.ipv4.tcp_thin_linear_timeouts": (0, 1), "net.ipv4.tcp_recovery": (0, 1),
    "net.ipv4.tcp_early_retrans": (0, 3), "net.ipv4.tcp_frto": (0, 2), "net.ipv4.tcp_max_tw_buckets": (0, 1, 2048),
    "net.ipv4.tcp_notsent_lowat": (0, 4096), "net.ipv4.tcp_min_tso_segs": (1, 2), "net.ipv4.tcp_autocorking": (0, 1),
    "net.ipv4.tcp_challenge_ack_limit": (0, 1, 1000), "net.ipv4.tcp_invalid_ratelimit": (0, 500), "net.ipv4.tcp_l3mdev_accept": (0, 1),
    "net.ipv4.udp_early_demux": (0, 1), "net.ipv4.tcp_early_demux": (0, 1), "net.ipv4.ip_early_demux": (0, 1),
    "net.ipv6.bindv6only": (0, 1), "net.ipv6.conf.all.forwarding": (0, 1), "net.ipv6.conf.all.hop_limit": (1, 64),
    "net.ipv6.icmp.echo_ignore_all": (0, 1), "net.ipv6.icmp.ratelimit": (0, 1000), "net.ipv6.ip_nonlocal_bind": (0, 1),
    "net.core.somaxconn": (0, 1, 4096),
}
# Of setsockopt(2), with the values that may be set: socket(7), tcp(7), ip(7), ipv6(7), udp(7).
OPTIONS: Mapping[str, Sequence[int]] = {
    "SO_REUSEADDR": (0, 1), "SO_REUSEPORT": (0, 1), "SO_KEEPALIVE": (0, 1), "SO_OOBINLINE": (0, 1), "SO_BROADCAST": (0, 1),
    "SO_RCVLOWAT": (1, 1000, 100000), "SO_RCVBUF": (0, 4096, 65536), "SO_SNDBUF": (0, 4096, 65536), "SO_LINGER": (-1, 0, 1, 5),
    "SO_PRIORITY": (0, 6), "SO_DONTROUTE": (0, 1), "SO_MARK": (0, 1), "TCP_NODELAY": (0, 1), "TCP_CORK": (0, 1),
    "TCP_MAXSEG": (88, 536, 1400), "TCP_KEEPIDLE": (1, 10, 32767), "TCP_KEEPINTVL": (1, 10, 32767), "TCP_KEEPCNT": (1, 3, 127),
    "TCP_SYNCNT": (1, 3, 127), "TCP_LINGER2": (-1, 0, 3, 120), "TCP_DEFER_ACCEPT": (0, 1, 10), "TCP_WINDOW_CLAMP": (0, 1000, 30000),
    "TCP_QUICKACK": (0, 1), "TCP_USER_TIMEOUT": (0, 100, 3000, 60000), "TCP_FASTOPEN": (0, 5), "TCP_NOTSENT_LOWAT": (0, 1000),
    "TCP_THIN_LINEAR_TIMEOUTS": (0, 1), "TCP_INQ": (0, 1), "IP_TTL": (1, 2, 64, 255), "IP_TOS": (0, 3, 16, 46 << 2),
    "IP_RECVERR": (0, 1), "IP_MTU_DISCOVER": (0, 1, 2, 3, 4, 5), "IP_FREEBIND": (0, 1), "IP_TRANSPARENT": (0, 1),
    "IP_BIND_ADDRESS_NO_PORT": (0, 1), "UDP_SEGMENT": (0, 100, 1400), "UDP_GRO": (0, 1), "UDP_CORK": (0, 1),
}
ICMP_ERRORS = ("net-unreachable", "host-unreachable", "protocol-unreachable", "port-unreachable", "frag-needed", "source-route-failed",
               "admin-prohibited", "time-exceeded", "parameter-problem", "source-quench")
SEND_FLAGS = ("MSG_OOB", "MSG_MORE", "MSG_DONTROUTE", "MSG_EOR", "MSG_CONFIRM")


class ScenarioError(Exception):
    """A scenario does not keep to the language; the message says where and why in one line."""


def _choice(values: Sequence[Any]) -> dict[str, Any]:
    return {"enum": list(values)}


def _number(least: float, most: float, kind: str = "integer") -> dict[str, Any]:
    return {"type": kind, "minimum": least, "maximum": most}


_NAME = {"type": "string", "pattern": "^[a-z][a-z0-9]{0,15}$"}
_HOST = _choice(HOSTS[-1])
_DISTANCE = _number(-1 << 31, 1 << 31)
_ADDRESS, _PORT, _SIZE = _choice(ADDRESSES), _number(0, 65535), _number(0, 1 << 20)
# By what a step does: the fields that it must have, and those that it may have.
STEPS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "sysctl": ({"host": _HOST, "name": _choice(list(SYSCTLS)), "value": {"type": "integer"}}, {}),
    "address": ({"host": _HOST, "address": _choice(("spare",)), "operation": _choice(("add", "delete"))}, {}),
    "route": ({"host": _HOST, "operation": _choice(("add", "replace", "append", "delete")), "to": _choice((*ADDRESSES, "default")),
               "type": _choice(("unicast", "blackhole", "unreachable", "prohibit", "throw"))},
              {"via": _HOST, "metric": _number(1, 9999), "mtu": _number(68, 65535), "advmss": _number(40, 65535),
               "hoplimit": _number(1, 255), "initcwnd": _number(1, 64), "quickack": _choice((0, 1)), "rto_min": _number(1, 2000)}),
    "rule": ({"host": _HOST, "operation": _choice(("add", "delete")), "action": _choice(("table", "blackhole", "unreachable", "prohibit")),
              "priority": _number(1, 40000)}, {"to": _ADDRESS, "from": _ADDRESS, "mark": _number(0, 3), "table": _choice((100, 254, 255))}),
    "firewall": ({"host": _HOST, "hook": _choice(("input", "output", "forward")), "match": _choice(
        ("all", "tcp", "syn", "synack", "ack", "rst", "fin", "udp", "icmp")), "verdict": _choice(("drop", "reject", "reset"))}, {}),
    "flush": ({"host": _HOST}, {}),
    "link": ({"host": _HOST, "peer": _HOST, "up": {"type": "boolean"}}, {}),
    # Between neighbours.
    "tunnel": ({"host": _HOST, "peer": _HOST, "kind": _choice(("ipip", "sit", "gre", "vxlan"))}, {}),
    "ipsec": ({"host": _HOST, "peer": _HOST, "mode": _choice(("transport", "tunnel")),
               "part": _choice(("both", "policies", "states"))}, {}),
    "nat": ({"host": _HOST, "kind": _choice(("masquerade", "redirect", "dnat", "track"))}, {}),
    "socket": ({"host": _HOST, "name": _NAME, "kind": _choice(KINDS)}, {}),
    "option": ({"socket": _NAME, "option": _choice(list(OPTIONS)), "value": {"type": "integer"}}, {}),
    "bind": ({"socket": _NAME, "address": _ADDRESS, "port": _PORT}, {}),
    "connect": ({"socket": _NAME, "address": _ADDRESS, "port": _PORT}, {}),
    "disconnect": ({"socket": _NAME}, {}),
    "listen": ({"socket": _NAME, "backlog": _number(0, 4096)}, {}),
    "accept": ({"socket": _NAME, "name": _NAME}, {}),
    "send": ({"socket": _NAME, "size": _SIZE}, {"address": _ADDRESS, "port": _PORT, "flags": _choice(SEND_FLAGS)}),
    "receive": ({"socket": _NAME, "size": _SIZE}, {"flags": _choice(("MSG_PEEK", "MSG_OOB", "MSG_TRUNC", "MSG_WAITALL"))}),
    "shutdown": ({"socket": _NAME, "how": _choice(("read", "write", "both"))}, {}),
    "close": ({"socket": _NAME}, {}),
    "poll": ({"socket": _NAME}, {}),
    "errors": ({"socket": _NAME}, {}),
    # A segment to the socket, as its peer would send it. `seq` and `ack` are bytes from what the socket expects next and has sent.
    "segment": ({"socket": _NAME, "flags": {"type": "string", "pattern": "^[FSRPAUEC]{0,8}$"}},
                {"seq": _DISTANCE, "ack": _DISTANCE, "window": _number(0, 65535), "size": _number(0, 1400),
                 "bad_checksum": {"type": "boolean"}, "ttl": _number(1, 255)}),
    # An ICMP error to the socket about the last packet that it sent.
    "icmp": ({"socket": _NAME, "error": _choice(ICMP_ERRORS)}, {"mtu": _number(0, 65535), "seq": _DISTANCE}),
    "wait": ({"seconds": _number(0, 7 * DAY, "number")}, {}),
}


def _step_schema(do: str) -> dict[str, Any]:
    required, optional = STEPS[do]
    return {"type": "object", "properties": {"do": {"const": do}, **required, **optional}, "required": ["do", *required],
            "additionalProperties": False}


_STEP = {do: Draft202012Validator(_step_schema(do)) for do in STEPS}
_WHOLE = Draft202012Validator({
    "type": "object", "required": ["version", "family", "hosts", "steps"], "additionalProperties": False,
    "properties": {
        "version": {"const": VERSION}, "family": _choice(FAMILIES), "hosts": _number(1, 3),
        "mtus": {"type": "array", "items": _number(1280, 65535), "maxItems": 2},
        "steps": {"type": "array", "maxItems": MOST_STEPS, "items": {
            "type": "object", "required": ["do"], "properties": {"do": _choice(list(STEPS))}}},
    }})


def check(scenario: Any) -> Scenario:
    """The scenario, if it keeps to the language. Raises ScenarioError."""
    if misfit := best_match(_WHOLE.iter_errors(scenario)):
        raise ScenarioError(_where(misfit))
    hosts = HOSTS[scenario["hosts"] - 1]
    if len(scenario.get("mtus", [])) not in (0, len(hosts) - 1):
        raise ScenarioError(f"mtus: {len(hosts)} hosts have {len(hosts) - 1} links")
    made: set[str] = set()
    for number, step in enumerate(scenario["steps"], 1):
        if misfit := best_match(_STEP[step["do"]].iter_errors(step)):
            raise ScenarioError(f"step {number}, {step['do']}: {_where(misfit)}")
        if wrong := _misuse(step, hosts, made):
            raise ScenarioError(f"step {number}, {step['do']}: {wrong}")
        if "name" in step and step["do"] != "sysctl":
            made.add(step["name"])
    return dict(scenario)


def _where(misfit: Any) -> str:
    path = "".join(f"{part + 1 if isinstance(part, int) else part}: " for part in misfit.absolute_path)
    return (path + " ".join(misfit.message.split()))[:300]


def _misuse(step: Step, hosts: Sequence[str], made: set[str]) -> str:
    """What no schema says: names must exist, values be of their list."""
    for field in ("host", "peer", "via"):
        if step.get(field, hosts[0]) not in hosts:
            return f"there is no {step[field]}"
    if "peer" in step and abs(hosts.index(step["host"]) - hosts.index(step["peer"])) != 1:
        return f"{step['host']} has no link to {step['peer']}"
    for field in ("address", "to", "from"):
        if step.get(field) in HOSTS[-1] and step[field] not in hosts:
            return f"there is no {step[field]}"
    if "socket" in step and step["socket"] not in made:
        return f"there is no socket {step['socket']}"
    if step["do"] in ("socket", "accept") and step["name"] in made:
        return f"there is a socket {step['name']} already"
    table = {"sysctl": (SYSCTLS, "name"), "option": (OPTIONS, "option")}.get(step["do"])
    if table and step["value"] not in (values := table[0][step[table[1]]]):
        return f"{step[table[1]]} may be {', '.join(map(str, values))}"
    return ""


def without(scenario: Scenario, indexes: set[int]) -> Scenario:
    """The scenario without these steps, and without those that need a socket which only they make."""
    made: set[str] = set()
    kept = []
    for index, step in enumerate(scenario["steps"]):
        if index in indexes or step.get("socket", "") not in made | {""}:
            continue
        if step["do"] in ("socket", "accept"):
            made.add(step["name"])
        kept.append(step)
    return {**scenario, "steps": kept}


def read(path: Path) -> Scenario:
    """The scenario in a file, which is one or a finding (explore.findings). Raises ScenarioError."""
    try:
        found = json.loads(path.read_bytes())
        return check(found["scenario"] if isinstance(found, dict) and "scenario" in found else found)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{path}: not JSON: {error}") from None
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def sockets(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Name and kind of each socket."""
    kinds: dict[str, str] = {}
    for step in scenario["steps"]:
        if step["do"] == "socket":
            kinds[step["name"]] = step["kind"]
        elif step["do"] == "accept":
            kinds[step["name"]] = "tcp"
    yield from kinds.items()
