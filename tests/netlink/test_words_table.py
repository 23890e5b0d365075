"""What `add` has made, `show` shows, and `del` by the same words removes, so that all is as before: of everything that ip(8) adds by words.

Source: ip-address(8), ip-route(8), ip-rule(8), ip-neighbour(8), ip-nexthop(8), ip-maddress(8), bridge(8), tc(8); rtnetlink(7).
"""

import re
import socket

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import LAN

pytestmark = pytest.mark.topology(LAN)

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
DONE, TWICE = (f"added, shown once, again {answer}, deleted, as before" for answer in ("refused", "accepted"))
HARDWARE = "02:00:00:00:00:09"
# {dev} is the client's device, {gw} and {gw2} are neighbours on it.
ADDRESSES = {
    4: ("203.0.113.5/24 dev {dev}", "203.0.113.5/24 dev lo", "203.0.113.5 peer 203.0.113.9/32 dev {dev}",
        "203.0.113.5/24 dev {dev} scope link",
        "203.0.113.5/24 dev {dev} label {dev}:1", "203.0.113.5/24 dev {dev} metric 50", "203.0.113.5/24 dev {dev} noprefixroute",
        "203.0.113.5/24 broadcast 203.0.113.255 dev {dev}", "203.0.113.5/32 dev {dev}", "203.0.113.5/31 dev {dev}"),
    6: ("2001:db8:5::5/64 dev {dev} nodad", "2001:db8:5::5/128 dev lo", "2001:db8:5::5/64 dev {dev} noprefixroute nodad",
        "2001:db8:5::5/64 dev {dev} metric 50 nodad", "2001:db8:5::5 peer 2001:db8:6::9/64 dev {dev} nodad",
        "2001:db8:5::5/64 dev {dev} home nodad", "2001:db8:5::5/127 dev {dev} nodad", "fe80::5/64 dev {dev} nodad"),
}
ROUTE_WORDS = (
    "{to} via {gw} dev {dev}", "{to} dev {dev}", "{to} via {gw} dev {dev} metric 50", "{to} via {gw} dev {dev} table 77",
    "{to} via {gw} dev {dev} proto static", "{to} via {gw} dev {dev} src {own}", "{to} via {gw} dev {dev} mtu 1400",
    "{to} via {gw} dev {dev} mtu lock 1400", "{to} via {gw} dev {dev} advmss 1000", "{to} via {gw} dev {dev} initcwnd 20",
    "{to} via {gw} dev {dev} hoplimit 9", "{to} via {gw} dev {dev} rto_min 300ms", "{to} via {gw} dev {dev} quickack 1",
    "{to} via {gw} dev {dev} features ecn", "blackhole {to}", "unreachable {to}", "prohibit {to}", "throw {to} table 77",
    "{to} nexthop via {gw} dev {dev} weight 1 nexthop via {gw2} dev {dev} weight 2", "{host} via {gw} dev {dev}",
    "default via {gw} dev {dev}",
    "{to} via {far} dev {dev} onlink",
)
ROUTES = {4: (*ROUTE_WORDS, "{to} via {gw} dev {dev} tos 0x10", "{to} via {gw} dev {dev} realm 5", "{to} dev {dev} scope link"),
          6: (*ROUTE_WORDS, "{to} via {gw} dev {dev} pref high", "{to} via {gw} dev {dev} pref low")}
RULES = (
    "from {to} table 77 pref 1000", "to {to} table 77 pref 1000", "from {to} to {host} table 77 pref 1000",
    "not from {to} table 77 pref 1000",
    "from all iif lo table 77 pref 1000", "from all oif {dev} table 77 pref 1000", "from all iif missing0 table 77 pref 1000",
    "from all fwmark 0x7 table 77 pref 1000", "from all fwmark 0x7/0xf table 77 pref 1000", "from all tos 0x10 table 77 pref 1000",
    "from all uidrange 1000-1001 table 77 pref 1000", "from all ipproto tcp table 77 pref 1000",
    "from all ipproto udp sport 80 table 77 pref 1000", "from all ipproto tcp dport 80-90 table 77 pref 1000",
    "from all table 77 suppress_prefixlength 0 pref 1000", "from all table 77 suppress_ifgroup 5 pref 1000",
    "from all goto 2000 pref 1000", "from {to} blackhole pref 1000", "from {to} unreachable pref 1000", "from {to} prohibit pref 1000",
    "from all table 77 pref 0", "from all table 77 pref 40000", "from {to} tun_id 5 table 77 pref 1000", "from all l3mdev pref 1000",
)
NEIGHBOURS = ("{gw} lladdr " + HARDWARE + " dev {dev} nud permanent", "{gw} lladdr " + HARDWARE + " dev {dev} nud noarp",
              "{gw} lladdr " + HARDWARE + " dev {dev} nud reachable", "{gw} lladdr " + HARDWARE + " dev {dev} nud stale")
PROXIES = ("proxy {gw} dev {dev}",)
NEXTHOPS = ("id 5 via {gw} dev {dev}", "id 5 dev {dev}", "id 5 blackhole", "id 5 via {gw} dev {dev} proto static",
            "id 5 via {far} dev {dev} onlink")
MULTICAST = ("01:00:5e:00:00:09 dev {dev}", "33:33:00:00:00:09 dev {dev}")
QDISCS = ("dev {dev} root pfifo limit 9", "dev {dev} root bfifo limit 9000", "dev {dev} root pfifo_fast", "dev {dev} ingress",
          "dev {dev} clsact")
FORWARDING = (HARDWARE + " dev {dev} self permanent", "33:33:00:00:00:19 dev {dev} self permanent")
FILL = {
    4: {"to": "203.0.113.0/24", "host": "203.0.113.77", "gw": "192.0.2.200", "gw2": "192.0.2.201", "far": "198.51.100.1"},
    6: {"to": "2001:db8:77::/48", "host": "2001:db8:77::77", "gw": "2001:db8:1::200", "gw2": "2001:db8:1::201", "far": "2001:db8:66::1"},
}


def only(words, expected=DONE):
    return dict.fromkeys(words, expected)


MAY_BE_TWICE = OneOf((DONE, TWICE), "no manual says that it cannot be added again")


# By row: how a kind of object is asked for, and its words.
KINDS = {
    **{f"IPv{family} address": (family, f"ip -{family} address", "show", only(ADDRESSES[family])) for family in (4, 6)},
    **{f"IPv{family} route": (family, f"ip -{family} route", "show table all", only(ROUTES[family])) for family in (4, 6)},
    **{f"IPv{family} rule": (family, f"ip -{family} rule", "show", only(RULES)) for family in (4, 6)},
    **{f"IPv{family} neighbour": (family, f"ip -{family} neighbour", "show nud all", only(NEIGHBOURS)) for family in (4, 6)},
    **{f"IPv{family} nexthop": (family, f"ip -{family} nexthop", "show", only(NEXTHOPS)) for family in (4, 6)},
    **{f"IPv{family} proxy": (family, f"ip -{family} neighbour", "show proxy", only(PROXIES, MAY_BE_TWICE)) for family in (4, 6)},
    "multicast address": (4, "ip maddress", "show dev {dev}", only(MULTICAST, MAY_BE_TWICE)),
    "queueing discipline": (4, "tc qdisc", "show dev {dev}", only(QDISCS)),
    "forwarding entry": (4, "bridge fdb", "show dev {dev}", only(FORWARDING)),
}
WORDS = Table("netlink.words", "kind", "words", "ip(8), tc(8), bridge(8): del takes what add took, and undoes it",
              {kind: cells for kind, (_family, _command, _show, cells) in KINDS.items()})
STEPS = ("show", "add", "show", "add", "show", "del", "show", "del")


def named(command, words):
    """What deletes it: ip-nexthop(8) takes an ID and nothing else."""
    return " ".join(words.split()[:2]) if command.endswith("nexthop") else words


def tried(host, command, words, shown):
    """The output and the error of each of STEPS, in one shell."""
    script = []
    for step in STEPS:
        line = f"{command} {shown}" if step == "show" else f"{command} {step} {named(command, words) if step == 'del' else words}"
        script.append(f"echo '=== '; {line} 2>&1 || echo '!!!'")
    return host.run(["sh", "-c", "\n".join(script)]).split("=== \n")[1:]


def failed(output):
    return "!!!" in output


def reason(output):
    """Why it failed, in the tool's last line."""
    return output.replace("!!!", "").strip().splitlines()[-1].replace(": ", ", ")


def lines(text):
    """What is shown, without what the kernel counts or times."""
    return sorted(re.sub(r"valid_lft \S+|preferred_lft \S+|used \S+|refcnt \d+|offload_\S+|expires \S+", "", line).strip()
                  for line in text.splitlines())


def told(host, command, words, shown):
    before, added, after, again, still, deleted, last, gone = tried(host, command, words, shown)
    if failed(added):
        return f"refused, {reason(added)}"
    new = [line for line in lines(after) if line not in lines(before)]
    seen = "not shown" if not new else "shown once" if lines(still) == lines(after) else "shown otherwise after the second"
    start = f"added, {seen}, again {'refused' if failed(again) else 'accepted'}"
    if failed(deleted):
        return f"{start}, not deleted, {reason(deleted)}"
    end = "as before" if lines(last) == lines(before) else "something is left"
    return f"{start}, deleted, {end}{'' if failed(gone) else ', deleted twice'}"


@pytest.mark.table(WORDS)
@pytest.mark.parametrize("row", WORDS.rows)
def test_what_was_added_is_shown_and_is_deleted_by_the_same_words(net, row, table):
    """Each cell adds an object twice and deletes it twice: the second time both must fail."""
    host, = net.nodes("client")
    family, command, shown, _cells = KINDS[row]
    fill = {**FILL[family], "dev": host.interfaces["server"].name, "own": host.address(FAMILIES[family])}
    for column in table:
        table.saw(told(host, command, column.format(**fill), shown.format(**fill)))
