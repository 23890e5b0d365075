"""The topology as plain commands, recorded while it is built."""

import shlex
import textwrap

import netns.hosts.host
from netns.hosts import pinned, topology
from netns.netlink import rtnl, xfrm

from .settings import meaning

_QUERIES = {"show", "list", "count", "-S", "-j", "-L", "ss"}
_FIREWALL = "firewall rules (nftables)"
_MOST_OF_THE_CASE = 40
END = "-- the end of setup.sh"              # ends the script on stdout, which has other lines as well
_HEAD = """\
#!/bin/sh
# {id}
# The hosts of this case as network namespaces, set up with plain commands. Needs root and iproute2.
#     sh setup.sh            creates them
#     sh setup.sh down       removes them
set -e

# A new namespace copies these from the machine's own: as a stock kernel has them.
usual() {{
    for setting in {usual}
    do ip netns exec "$1" sysctl -qew "net.ipv4.conf.$setting"; done
}}

if [ "$1" = down ]; then
    for host in {roles}; do ip netns delete "$host"; done
    exit
fi
"""


class CommandMessage(rtnl.Message):
    """An rtnetlink message with the matching `ip` command and the reason for it."""


def _with_command(function, words):
    """Wrap a function of rtnl: its messages get words(arguments) -> (command, why)."""
    def wrapped(*arguments, **named):
        message = CommandMessage(*function(*arguments, **named))
        message.command, message.why = words(*arguments, **named)
        return message
    return wrapped


class Recorder:
    """`lines` are those of the setup, `later` those of the case itself: (why, command)."""

    def __init__(self, manifest):
        self.manifest = manifest
        self.lines, self.later = [], []
        self.roles, self.names = {}, {1: "lo"}
        self._at = self.lines

    def topology_built(self):
        self._at = self.later

    def _note(self, why, command):
        self._at.append((why, command))

    def _on(self, role, command, why, stdin=""):
        text = "ip netns exec %s %s" % (role, command)
        if command.startswith("ip ") and "-batch" not in command:
            text = "ip -n %s %s" % (role, command[3:])
        self._note(why, text + (" <<'END'\n%s\nEND" % "\n".join(line.strip() for line in stdin.strip().splitlines()) if stdin else ""))

    def install(self):
        self._hosts(netns.hosts.host.Host)
        plug = topology.plug

        def plugged(link, number, left, right):
            plug(link, number, left, right)
            near, far = left.interfaces[right.role], right.interfaces[left.role]
            self.names.update({near.index: near.name, far.index: far.name})
            self._note("veth pair between %s and %s, MTU %d" % (link.left, link.right, link.mtu),
                       "ip link add name %s netns %s address %s mtu %d type veth peer name %s netns %s address %s mtu %d"
                       % (near.name, left.role, near.mac, link.mtu, far.name, right.role, far.mac, link.mtu))

        topology.plug = plugged
        pin_namespace = topology.pin_namespace

        def pinned_first(host):
            self._note("%s: nothing of this machine's settings" % host.role, "usual %s" % host.role)
            pin_namespace(host)

        topology.pin_namespace = pinned_first
        self._messages()

    def _hosts(self, host):
        init, run, nft, pin, sysctl = host.__init__, host.run, host.nft, host.pin, host.sysctl

        def new(each, role):
            init(each, role)
            self.roles[id(each.namespace)] = role
            self._note("host %s" % role, "ip netns add %s" % role)

        def ran(each, command, stdin="", timeout=30):
            output = run(each, command, stdin, timeout)
            if not _QUERIES.intersection(command):
                self._on(each.role, shlex.join(command), "%s: %s" % (each.role, _tool(command)), stdin)
            return output

        def ruled(each, text, json=False):
            output = nft(each, text, json)
            if text.split()[0] not in _QUERIES:
                self._on(each.role, "nft -f -", "%s: %s" % (each.role, _FIREWALL), text)
            return output

        def pinned(each, values):
            pin(each, values)
            for name, value in values.items():
                self._setting(each.role, name, value)

        def set_one(each, name, value=None):
            found = sysctl(each, name, value)
            if value is not None:
                self._setting(each.role, name, value)
            return found

        host.__init__, host.run, host.nft, host.pin, host.sysctl = new, ran, ruled, pinned, set_one

    def _setting(self, role, name, value):
        value = str(value).strip()
        command = "sysctl -qw %s" % shlex.quote("%s=%s" % (name, value))
        if not value:
            command = "sh -c 'echo > /proc/sys/%s'" % name.replace(".", "/")
        self._on(role, command, "%s: %s" % (role, meaning(name, value)))

    def _messages(self):
        rtnl.link_state = _with_command(rtnl.link_state, lambda index, up: (
            "ip link set dev %s %s" % (self.names.get(index, "index %d" % index), "up" if up else "down"),
            "set the interface %s" % ("up" if up else "down")))
        rtnl.address = _with_command(rtnl.address, lambda index, local: (
            "ip address add %s dev %s%s" % (local, self.names[index], " nodad" if local.version == 6 else ""),
            "address" + (", usable at once (no duplicate address detection)" if local.version == 6 else "")))
        rtnl.route = _with_command(rtnl.route, lambda to, *ways, mtu=0: (
            "ip route add %s proto static%s%s" % (to, " mtu %d" % mtu if mtu else "", "".join(
                "%s via %s dev %s" % (" nexthop" if len(ways) > 1 else "", gateway, self.names[index]) for gateway, index in ways)),
            "default route" if to.prefixlen == 0 else "route to %s" % to))
        request = rtnl.request

        def requested(namespace, messages):
            messages = list(messages)
            request(namespace, messages)
            role = self.roles.get(id(namespace), "?")
            for message in messages:
                if isinstance(message, CommandMessage):
                    self._on(role, message.command, "%s: %s" % (role, message.why))

        rtnl.request = requested
        add = xfrm.add

        def added(host, *items):
            add(host, *items)
            for item in items:
                self._on(host.role, xfrm_words(item),
                         "%s: %s" % (host.role, "IPsec SA" if isinstance(item, xfrm.SA) else "IPsec policy"))

        xfrm.add = added

    def script(self):
        roles = " ".join(dict.fromkeys(self.roles.values()))
        blocks = [_HEAD.format(id=self.manifest["id"], roles=roles, usual=_usual())]
        blocks += ["# %s\n%s\n" % line for line in self.lines]
        if self.later:
            blocks.append("# Commands that the case itself runs, besides its sockets:")
            for _why, command in self.later[:_MOST_OF_THE_CASE]:
                blocks.append("#   %s" % command.replace("\n", "\n#   "))
        return "\n".join(blocks) + "\n"


def _usual():
    """The IPv4 settings of devices, for the script's loop."""
    prefix = "net.ipv4.conf."
    words = ("%s=%s" % (name[len(prefix):], value) for name, value in pinned.NAMESPACE.items()
             if name.startswith((prefix + "all.", prefix + "default.")))
    return " \\\n        ".join(textwrap.wrap(" ".join(words), 120))


def _tool(command):
    words = {"ip": "links, addresses, routes", "nft": _FIREWALL, "ipvsadm": "IPVS load balancer", "tc": "qdisc",
             "conntrack": "connection tracking", "ipset": "IP set", "sysctl": "sysctl", "bridge": "bridge"}
    return words.get(command[0], "firewall rules" if "tables" in command[0] else command[0])


def xfrm_words(item):
    """The `ip xfrm` command for a policy or a security association."""
    if isinstance(item, xfrm.SA):
        mark = " mark %#x mask %#x" % item.mark if item.mark else ""
        return ("ip xfrm state add src %s dst %s proto esp spi %#x reqid %d mode %s aead 'rfc4106(gcm(aes))' 0x%s 128%s"
                % (item.source, item.destination, item.spi, item.reqid, item.mode, item.key.hex(), mark))
    chosen, template = item.selector, item.template
    words = "ip xfrm policy add src %s dst %s" % (chosen.source, chosen.destination)
    words += " proto %d" % chosen.protocol if chosen.protocol else ""
    words += " sport %d" % chosen.sport if chosen.sport else ""
    words += " dport %d" % chosen.dport if chosen.dport else ""
    words += " dir %s priority %d action %s" % (item.direction, item.priority, item.action)
    if template:
        words += " tmpl src %s dst %s proto esp reqid %d mode %s" % (template.source, template.destination, template.reqid, template.mode)
    return words
